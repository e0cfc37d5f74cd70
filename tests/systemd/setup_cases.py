"""`gatepost setup` beside a Postfix that serves 587 and 465 as Debian's master.cf suggests."""

import re
import threading
import time

from clients import Client, is_open
from machine import eventually

HOST = "mail.example.org"

# The services submission and submissions of Debian's master.cf, without their "#".
UNCOMMENT = "/^#submissions? +inet/,/ORIGINATING/ s/^#(submission| +-o)/\\1/"

# Dovecot's socket for Postfix, and the way of Debian to say where the passwords are.
DOVECOT = """service auth {
  unix_listener /var/spool/postfix/private/auth {
    mode = 0660
    user = postfix
  }
}
"""

SERVED = {
    "smtpd_sasl_type": "dovecot",
    "smtpd_sasl_path": "private/auth",
    "inet_interfaces": "all",
    "inet_protocols": "all",
    "myhostname": HOST,
    "mydestination": HOST,
    "smtpd_tls_cert_file": "/etc/ssl/mail.pem",
    "smtpd_tls_key_file": "/etc/ssl/mail.key",
    "smtpd_client_restrictions": "reject_unknown_client_hostname",
    "alias_maps": "",
    "alias_database": "",
}


def certificate(directory, chain, key, name=HOST):
    return (
        f"mkdir -p {directory} && cd {directory} && openssl req -x509 -newkey ec"
        f" -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={name}"
        f" -addext subjectAltName=DNS:{name} -keyout {key} -out {chain} 2>&1"
    )


def postfix_serves_the_ports(machine):
    machine.run("cp -a /etc/postfix /root/postfix-installed")
    machine.run(certificate("/etc/ssl", "mail.pem", "mail.key"))
    machine.run(f"sed -i -E '{UNCOMMENT}' /etc/postfix/master.cf")
    # A comment, blanks and an order of its own, which --undo has to give back.
    machine.run("sed -i '1i # kept by hand  ' /etc/postfix/master.cf")
    machine.run("postconf -e " + " ".join(f"{name}={value}" for name, value in SERVED.items()))
    machine.write("/etc/dovecot/local.conf", DOVECOT)
    machine.run("systemctl restart dovecot postfix")
    eventually("Postfix serves", lambda: is_postfix(587) and is_postfix(465))


def is_postfix(port):
    return is_open(port) and "Postfix" in Client(port).greeting


def state(machine):
    """All that setup may change, as text."""
    files = "find /etc/postfix /etc/gatepost /etc/letsencrypt /etc/systemd -type f 2>/dev/null"
    each = f"{files} | sort | xargs"
    listed = machine.run(f"{each} sha256sum; {each} stat -c '%a %u %g %y'")
    units = "gatepost.socket gatepost-auth.socket gatepost.service postfix.service"
    properties = "--property=Id,MainPID,ActiveState,UnitFileState"
    processes = machine.run(f"systemctl show {units} {properties}")
    count = "sudo -u gatepost gatepost credential list 2>/dev/null | wc -l"
    counts = machine.try_run(count).stdout
    return listed + processes + counts


def set_up(machine, options="--yes"):
    start = time.monotonic()
    text = machine.run(f"gatepost setup {options} 2>&1")
    print(f"    setup {options}: {time.monotonic() - start:.1f} s")
    return text


def first_credential(text):
    found = re.search(r"--auth-user (smtp_\w{16}) --auth-password (sk_\w{32}) ", text)
    assert found, text
    return found.groups()


def undo(machine, before):
    machine.run("gatepost setup --undo")
    assert files_of_postfix(machine) == before
    eventually("Postfix serves again", lambda: is_postfix(587) and is_postfix(465))
    active = machine.try_run("systemctl is-active 'gatepost*.socket' gatepost.service").stdout
    assert "active" not in active.replace("inactive", ""), active
    assert machine.try_run("ls /etc/gatepost/before-setup").returncode != 0
    states = machine.try_run("systemctl is-enabled gatepost.socket gatepost.service").stdout
    assert states.split() == ["disabled"] * 2, states


def files_of_postfix(machine):
    read = "cat main.cf master.cf | base64 && stat -c '%a %u %g' *.cf"
    return machine.run(f"cd /etc/postfix && {read}")


def delivers(machine, credential, subject):
    for port in (587, 465):
        client = Client(port)
        client.log_in(credential)
        client.send(f"{subject}-{port}")
        search = f"grep -q 'Subject: {subject}-{port}' /var/mail/ben"
        eventually("it is delivered", lambda: machine.try_run(search).returncode == 0)


def a_dry_run_prints_the_changes_and_makes_none(machine):
    postfix_serves_the_ports(machine)
    before = state(machine)
    text = set_up(machine, "--dry-run")
    assert "+submit     unix" in text and "\n    +#submission inet" in text, text
    assert "Nothing was changed." in text and before == state(machine)


def setup_in_front_delivers_on_both_ports_and_is_undone(machine):
    before = files_of_postfix(machine)
    closed, opened, stop = [], [], threading.Event()

    def watch():
        while not stop.is_set():
            (opened if is_open(587) else closed).append(time.monotonic())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    text = set_up(machine)
    stop.set()
    watcher.join()
    span = closed[-1] - closed[0] if closed else 0
    print(f"    587: {len(opened)} connections taken, {len(closed)} refused within {span:.2f} s")
    assert span < 2
    credential = first_credential(text)
    assert "gp_" in text and "http://127.0.0.1:8587/" in text and "Mail can flow." in text, text
    delivers(machine, credential, "front")
    logged = machine.run("journalctl --no-pager -o cat -u 'postfix*' | grep sasl_username")
    assert f"sasl_username={credential[0]}" in logged, logged
    service = machine.run("postconf -P")
    assert "submit/unix/milter_macro_daemon_name = ORIGINATING" in service, service

    standing = state(machine)
    again = set_up(machine)
    assert "set up already" in again and "sk_" not in again, again
    assert state(machine) == standing

    machine.run("sed -i '$a # by hand' /etc/postfix/master.cf")
    refused = machine.try_run("gatepost setup --undo")
    assert refused.returncode == 1 and "By hand" in refused.stderr, refused
    machine.run("sed -i '$d' /etc/postfix/master.cf")
    undo(machine, before)
    refused = machine.try_run("gatepost setup --undo")
    assert refused.returncode == 1 and "nothing to undo" in refused.stderr, refused


def setup_behind_logs_in_through_postfix_and_is_undone(machine):
    before = files_of_postfix(machine)
    # The questions: host name, front or behind, the end of today's passwords.
    text = machine.run("printf '\\nbehind\\nyes\\n' | script -qec 'gatepost setup' /dev/null")
    assert text.count("]: ") == 3, text
    delivers(machine, first_credential(text), "behind")
    assert all(is_postfix(port) for port in (587, 465))
    standing = state(machine)
    again = set_up(machine)
    assert "set up already" in again and state(machine) == standing, again
    undo(machine, before)


def setup_keeps_addresses_certificate_and_users(machine):
    live = f"/etc/letsencrypt/live/{HOST}"
    make = certificate(live, "fullchain.pem", "privkey.pem")
    machine.run(make)
    users = "ann:{PLAIN}a-password-of-ann::::::\n"
    machine.write("/etc/dovecot/users", users)
    machine.run("sed -i s/auth-system/auth-passwdfile/ /etc/dovecot/conf.d/10-auth.conf")
    machine.run("postconf -e inet_interfaces=loopback-only inet_protocols=ipv4")
    machine.run("systemctl restart dovecot postfix")
    before = files_of_postfix(machine)
    text = set_up(machine)
    assert "Would take 1 credential" in text and "Took 1 credential" in text, text
    delivers(machine, ("ann", "a-password-of-ann"), "imported")
    listening = machine.run("systemctl show gatepost.socket --property=Listen")
    assert "127.0.0.1:587" in listening and "0.0.0.0" not in listening, listening
    shown = Client(465).socket.getpeercert(True)
    machine.run(make)
    machine.run(f"RENEWED_LINEAGE={live} /etc/letsencrypt/renewal-hooks/deploy/gatepost")
    eventually("the renewed one", lambda: Client(465).socket.getpeercert(True) != shown)
    again = set_up(machine)
    assert "set up already" in again, again
    undo(machine, before)
    left = machine.run("find /etc/letsencrypt/renewal-hooks /etc/gatepost -type f")
    assert machine.try_run("ls -d /etc/systemd/system/gatepost*.d").returncode != 0
    assert left.split() == ["/etc/gatepost/config.toml.undone"], left
    machine.run("rm -r /etc/letsencrypt")
    machine.run("postconf -e inet_interfaces=all inet_protocols=all")
    machine.run("systemctl restart postfix")
    eventually("Postfix serves", lambda: is_postfix(587) and is_postfix(465))


def a_setup_that_doctor_finds_a_problem_with_is_taken_back(machine):
    before = files_of_postfix(machine)
    done = machine.try_run("gatepost setup --yes --hostname other.example --certificate postfix")
    assert done.returncode == 1 and "PROBLEM" in done.stdout, done
    assert "took its changes back" in done.stderr and "sk_" not in done.stdout, done
    assert files_of_postfix(machine) == before
    eventually("Postfix serves again", lambda: is_postfix(587) and is_postfix(465))


def setup_refuses_a_machine_that_it_does_not_understand(machine):
    before = files_of_postfix(machine)
    master, config = "/etc/postfix/master.cf", "/etc/gatepost/config.toml"
    for spoil, mend, cause, step in [
        (
            f"sed -i -E 's/^submission( .*) smtpd$/submission\\1 spawn user=ben argv=x/' {master}",
            None,
            "runs",
            "by hand",
        ),
        (f"echo 'submit unix n - n - - smtpd' >> {master}", None, "submit/unix", "rename"),
        (f"sed -i -E 's/^(submission +inet)/#\\1/' {master}", None, "commented out", "put a #"),
        (f"echo 'neither service nor option' >> {master}", None, "master.cf", "by hand"),
        ("postconf -e queue_directory=/srv/q", None, "queue_directory", "by hand"),
        (f"echo x > {config}", f"rm {config}", "config.toml", "Move"),
        ("systemctl stop postfix@-", "systemctl start postfix@-", "does not run", "start postfix"),
    ]:
        machine.run("cp -p /etc/postfix/*.cf /root/")
        machine.run(spoil)
        spoiled = files_of_postfix(machine)
        done = machine.try_run("gatepost setup --yes")
        said = done.stderr
        assert done.returncode in (1, 74) and cause in said and step in said, f"{spoil}: {done}"
        assert files_of_postfix(machine) == spoiled, spoil
        assert machine.try_run("test -e /etc/gatepost/before-setup").returncode != 0, spoil
        machine.run("cp -p /root/main.cf /root/master.cf /etc/postfix/")
        if mend:
            machine.run(mend)
    assert files_of_postfix(machine) == before
    for command, cause in [
        ("sudo -u ben gatepost setup --yes", "sudo"),
        ("gatepost setup", "--yes"),
        ("gatepost setup --yes --certificate /nowhere", "/nowhere"),
    ]:
        done = machine.try_run(command, input="")
        assert done.returncode != 0 and cause in done.stderr, done
    machine.run("systemctl disable --now dovecot")
    machine.run("systemctl stop postfix && rm -rf /etc/postfix")
    machine.run("mv /root/postfix-installed /etc/postfix")


CASES = [
    a_dry_run_prints_the_changes_and_makes_none,
    setup_in_front_delivers_on_both_ports_and_is_undone,
    setup_behind_logs_in_through_postfix_and_is_undone,
    setup_keeps_addresses_certificate_and_users,
    a_setup_that_doctor_finds_a_problem_with_is_taken_back,
    setup_refuses_a_machine_that_it_does_not_understand,
]
