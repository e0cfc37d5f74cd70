"""Gatepost under a real systemd and beside a real Postfix, from the package to its purge."""

import json
import socket
import sys
import threading
import time
from pathlib import Path

import setup_cases
from clients import Client, Knocking, is_open, scrape
from machine import Machine, eventually

CONFIG = """hostname = "mail.example.org"
[tls]
certificate = "/etc/gatepost/fullchain.pem"
key = "/etc/gatepost/privkey.pem"
[upstream]
address = "unix:/var/spool/postfix/public/submit"
"""

# The service that Gatepost hands sessions to, as docs/src/guide/by-hand.md has it.
HAND_OVER = """submit unix n - n - - smtpd
  -o smtpd_authorized_xclient_hosts=127.0.0.1
  -o smtpd_tls_security_level=none
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_sasl_type=dovecot
  -o smtpd_sasl_path=private/gatepost
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
  -o mynetworks=
2525 inet n - y - - smtpd
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_sasl_type=dovecot
  -o smtpd_sasl_path=private/gatepost
  -o smtpd_sasl_security_options=noanonymous
  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
"""

NAMES = ("", "-submissions", "-web", "-metrics", "-admin", "-auth")
SOCKETS = [f"gatepost{name}.socket" for name in NAMES]
ALL = " ".join(SOCKETS + ["gatepost.service"])
PORTS = (587, 465, 8587, 9587)

PACKAGES = sys.argv[2]


def package(version):
    return next(Path(PACKAGES).glob(f"gatepost_{version}_*.deb"))


def the_package_installs_and_opens_nothing(machine):
    machine.copy(package("0.0.1"), "/root/1.deb")
    machine.copy(package("0.0.2"), "/root/2.deb")
    machine.run("dpkg --install /root/1.deb")
    assert not any(map(is_open, PORTS)), "the installation opens a port"
    states = machine.try_run(f"systemctl is-enabled {ALL}").stdout.split()
    assert set(states) == {"disabled"}, states
    machine.run("useradd --create-home ben")
    machine.run("gatepost --version && id gatepost && getent group gatepost-admin")
    machine.run("test -s /usr/share/man/man1/gatepost-credential-create.1.gz")
    machine.run("bash -n /usr/share/bash-completion/completions/gatepost")
    machine.run("test -s /usr/share/zsh/vendor-completions/_gatepost")
    machine.run("test -s /usr/share/fish/vendor_completions.d/gatepost.fish")
    machine.run("test -s /usr/share/doc/gatepost/examples/fail2ban/filter.d/gatepost.conf")
    missing = machine.run("ldd /usr/bin/gatepost | grep 'not found' || true")
    assert not missing, missing


def a_message_is_delivered_on_both_ports(machine):
    machine.write("/etc/gatepost/config.toml", CONFIG)
    machine.run(
        "cd /etc/gatepost && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
        " -days 30 -subj /CN=mail.example.org -addext subjectAltName=DNS:mail.example.org"
        " -keyout privkey.pem -out fullchain.pem 2>&1"
        " && chgrp gatepost privkey.pem && chmod 0640 privkey.pem"
    )
    machine.run("cat >> /etc/postfix/master.cf", input=HAND_OVER)
    machine.run(
        "postconf -e myhostname=mail.example.org mydestination=mail.example.org"
        " inet_interfaces=loopback-only inet_protocols=ipv4 alias_maps= alias_database="
        " compatibility_level=3.6 && systemctl restart postfix"
    )
    machine.run(f"systemctl enable --now {ALL} 2>&1")
    shown = machine.run("gatepost credential create --name printer --json")
    made = json.loads(shown)
    machine.credential = (made["username"], made["password"])
    for port in (587, 465):
        client = Client(port)
        client.log_in(machine.credential)
        client.send(f"by-{port}")
        search = f"grep -q 'Subject: by-{port}' /var/mail/ben"
        eventually("it is delivered", lambda: machine.try_run(search).returncode == 0)


def one_restart_of_all_units_keeps_the_ports_25_times(machine):
    for number in range(25):
        done = machine.try_run(f"systemctl restart {ALL}")
        assert done.returncode == 0, f"restart {number}: {done.stderr}\n{machine.journal()}"
        for port in PORTS:
            assert is_open(port), f"restart {number}: {port} is closed\n{machine.journal()}"
        assert Client(587).greeting.startswith("220")


def a_failed_start_closes_no_port(machine):
    key, config = "/etc/gatepost/privkey.pem", "/etc/gatepost/config.toml"
    store = "/var/lib/gatepost/gatepost.db"
    faults = [
        (f"chmod 0600 {key}", f"chmod 0640 {key}", key),
        (f"echo nonsense >> {config}", f"sed -i /nonsense/d {config}", config),
        (f"chown root {store}*", f"chown gatepost {store}*", store),
    ]
    for spoil, mend, file in faults:
        machine.run(f"systemctl stop gatepost.service; {spoil}")
        waiting = []
        thread = threading.Thread(target=lambda: waiting.append(Client(587).greeting))
        thread.start()
        failures = "systemctl show gatepost --property=NRestarts --value"
        eventually("starts fail", lambda: int(machine.run(failures)) >= 2)
        for _ in range(50):
            assert all(map(is_open, PORTS)), f"{spoil}: a port is closed"
        # Also an error before the log starts is one in the journal.
        own = "journalctl --unit=gatepost --identifier=gatepost --output=cat --lines=1"
        errors = machine.run(f"{own} --priority=err")
        assert file in errors and "<3>" not in errors, errors
        machine.run(mend)
        start = time.monotonic()
        thread.join(20)
        assert waiting and waiting[0].startswith("220"), f"{spoil}: {waiting}\n{machine.journal()}"
        print(f"    {spoil}: served {time.monotonic() - start:.1f} s after it was mended")
    assert Client(465).greeting.startswith("220")


def a_taken_port_of_the_metrics_does_not_stop_mail(machine):
    machine.run(f"systemctl stop gatepost-metrics.socket gatepost.service")
    with socket.create_server(("127.0.0.1", 9587)):
        machine.try_run(f"systemctl restart {ALL}")
        client = Client(587)
        client.log_in(machine.credential)
        client.send("without metrics")
    machine.run("systemctl restart gatepost-metrics.socket gatepost.service")
    assert "gatepost_connections_total" in scrape()


def doctor_names_a_socket_unit_whose_port_is_taken(machine):
    for unit, port in (("gatepost-metrics.socket", 9587), ("gatepost-web.socket", 8587)):
        machine.run(f"systemctl stop {unit} gatepost.service")
        other = f"systemd-socket-activate --listen=127.0.0.1:{port} sleep infinity"
        machine.run(f"systemd-run --quiet --unit=other {other}")
        eventually("the port is taken", lambda: is_open(port))
        machine.try_run(f"systemctl restart {ALL}")
        client = Client(587)
        client.log_in(machine.credential)
        client.send(f"without {port}")
        step = f"systemctl restart {unit} gatepost"
        said = machine.try_run("gatepost doctor").stdout
        for part in (f"{unit} failed", f"127.0.0.1:{port}", "taken by sleep", step):
            assert part in said, f"{part}: {said}"
        machine.run("systemctl stop other")
        said = machine.try_run("gatepost doctor").stdout
        assert f"{unit} failed" in said and "free now" in said, said
        machine.run(step)
        assert is_open(port)
        said = machine.try_run("gatepost doctor").stdout
        assert unit not in said, said


def a_stalled_client_keeps_no_new_ones_waiting_at_a_restart(machine):
    stalled = Client(587)
    stalled.log_in(machine.credential)
    for line, code in (
        ("MAIL FROM:<ann@example.org>", "250"),
        ("RCPT TO:<ben@mail.example.org>", "250"),
        ("DATA", "354"),
    ):
        stalled.say(line, code)
    stalled.socket.sendall(b"Subject: stalled\r\n")
    restart = machine.start("systemctl restart gatepost")
    state = "systemctl show gatepost --property=ActiveState --value"
    eventually("it stops", lambda: machine.run(state).strip() != "active")
    start = time.monotonic()
    assert Client(587).greeting.startswith("220")
    waited = time.monotonic() - start
    print(f"    a new client waited {waited:.1f} s")
    assert waited < 10
    assert restart.wait(30) == 0
    stalled.close()


def the_drop_in_for_tcp_takes_no_line_of_others_away(machine):
    drop_ins = "/etc/systemd/system/gatepost.service.d"
    for name, group in (("05-before", "mail"), ("own", "news")):
        text = f"[Service]\nSupplementaryGroups={group}\nRestrictAddressFamilies=AF_NETLINK\n"
        machine.write(f"{drop_ins}/{name}.conf", text)
    example = "/usr/share/doc/gatepost/examples/10-tcp-upstream.conf"
    machine.run(f"cp {example} {drop_ins}/ && systemctl daemon-reload")
    machine.run("systemctl restart gatepost")
    names = "SupplementaryGroups,RestrictAddressFamilies,PrivateNetwork,IPAddressAllow"
    shown = machine.run(f"systemctl show gatepost --property={names}")
    kept = ("postdrop", "mail", "news", "AF_UNIX", "AF_NETLINK")
    for part in kept + ("AF_INET6", "PrivateNetwork=no", "127.0.0.0/8"):
        assert part in shown, f"{part}: {shown}"
    client = Client(587)
    client.log_in(machine.credential)
    client.close()
    machine.run(f"rm -r {drop_ins} && systemctl daemon-reload && systemctl restart gatepost")


def a_port_is_changed_by_one_edit(machine):
    drop_in = "/run/systemd/system/gatepost.socket.d/port.conf"
    machine.write(drop_in, "[Socket]\nListenStream=\nListenStream=127.0.0.1:2587\n")
    machine.run(f"systemctl daemon-reload && systemctl restart {ALL}")
    assert Client(2587).greeting.startswith("220") and not is_open(587)
    machine.run(f"rm {drop_in} && systemctl daemon-reload && systemctl restart {ALL}")
    assert Client(587).greeting.startswith("220")


def postfix_asks_at_the_auth_socket_with_chroot(machine):
    path = "/var/spool/postfix/private/gatepost"
    wanted = ["660", "postfix"]
    logins = 0
    for _ in range(3):
        assert machine.run(f"stat --format='%a %U' {path}").split() == wanted
        for _ in range(20):
            client = Client(2525)
            client.log_in(machine.credential, is_plain=True)
            client.close()
            logins += 1
        machine.run(f"postfix set-permissions && systemctl restart {ALL}")
    print(f"    {logins} logins")


def the_user_of_the_service_can_use_the_command_line(machine):
    listed = machine.run("sudo -u gatepost gatepost credential list")
    assert machine.credential[0] in listed
    machine.run("sudo -u gatepost gatepost credential create --name second")


def members_of_the_admin_group_use_the_command_line(machine):
    machine.run("useradd --groups gatepost-admin ann")
    for mode in ("0640", "0644"):
        machine.run(f"chmod {mode} /etc/gatepost/config.toml")
        made = machine.run(f"sudo -u ann gatepost credential create --name by-{mode} --json")
        credential = json.loads(made)
        client = Client(587)
        client.log_in((credential["username"], credential["password"]))
        assert credential["username"] in machine.run("sudo -u ann gatepost sessions list")
        client.close()
        machine.run(f"sudo -u ann gatepost credential delete {credential['username']} --yes")
    refused = machine.try_run("sudo -u ben gatepost credential list")
    assert refused.returncode == 74 and "gatepost-admin" in refused.stderr, refused


def the_log_is_the_journals(machine):
    machine.run("systemctl restart gatepost")
    warnings = machine.run("journalctl --unit=gatepost --priority=warning --output=cat")
    assert "there is no admin token yet" in warnings and "ready" not in warnings, warnings
    lines = machine.run("journalctl --unit=gatepost --output=cat --lines=50")
    assert "ready" in lines
    doubled = [line for line in lines.splitlines() if line[:4].isdigit() or " INFO " in line]
    assert not doubled, doubled


def restarts_and_kills_refuse_no_connection(machine):
    with Knocking():
        for signal in ("TERM", "KILL", "TERM", "KILL"):
            before = machine.run("systemctl show gatepost --property=MainPID --value")
            machine.run(f"systemctl kill --signal={signal} gatepost")
            eventually(
                "the next process serves",
                lambda: machine.run("systemctl show gatepost --property=MainPID --value")
                not in (before, "0\n")
                and machine.try_run("systemctl is-active gatepost").returncode == 0,
            )


def an_upgrade_refuses_no_connection(machine):
    with Knocking():
        machine.run("dpkg --install /root/2.deb")
    client = Client(587)
    client.log_in(machine.credential)
    client.close()


def a_removal_keeps_configuration_and_store_and_a_purge_does_not(machine):
    machine.run("mkdir /etc/gatepost/before-setup")
    said = machine.run("dpkg --remove gatepost 2>&1")
    assert "gatepost setup --undo" in said, said
    assert not any(map(is_open, PORTS)), "a port stays open"
    machine.run("test -s /etc/gatepost/config.toml && test -s /var/lib/gatepost/gatepost.db")
    machine.run("dpkg --purge gatepost")
    machine.run("test ! -e /etc/gatepost && test ! -e /var/lib/gatepost")
    left = machine.run("find / -xdev -name '*gatepost*' -not -path '/proc/*' -not -path '/sys/*'")
    print(f"    left: {left.split()}")


CASES = [
    the_package_installs_and_opens_nothing,
    *setup_cases.CASES,
    a_message_is_delivered_on_both_ports,
    one_restart_of_all_units_keeps_the_ports_25_times,
    a_failed_start_closes_no_port,
    a_taken_port_of_the_metrics_does_not_stop_mail,
    doctor_names_a_socket_unit_whose_port_is_taken,
    a_stalled_client_keeps_no_new_ones_waiting_at_a_restart,
    the_drop_in_for_tcp_takes_no_line_of_others_away,
    a_port_is_changed_by_one_edit,
    postfix_asks_at_the_auth_socket_with_chroot,
    the_user_of_the_service_can_use_the_command_line,
    members_of_the_admin_group_use_the_command_line,
    the_log_is_the_journals,
    restarts_and_kills_refuse_no_connection,
    an_upgrade_refuses_no_connection,
    a_removal_keeps_configuration_and_store_and_a_purge_does_not,
]

# Names of cases on the command line leave the others out.
wanted = [case for case in CASES if not sys.argv[3:] or case.__name__ in sys.argv[3:]]
with Machine(sys.argv[1]) as machine:
    for case in wanted:
        start = time.monotonic()
        print(f"{case.__name__}", flush=True)
        case(machine)
        print(f"    ok, {time.monotonic() - start:.1f} s", flush=True)
