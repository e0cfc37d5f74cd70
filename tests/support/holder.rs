//! Clients that want nothing but to hold connections: a process of their own, which has hundreds of
//! them at each of several places and replaces them all the time.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const PROGRAM: &str = r"
import resource, socket, sys, time
count, said, places = int(sys.argv[1]), bytes.fromhex(sys.argv[2]), sys.argv[3:]
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

def connect(place):
    if place.startswith('/'):
        held = socket.socket(socket.AF_UNIX)
    else:
        held = socket.socket()
        place = (place.rsplit(':', 1)[0], int(place.rsplit(':', 1)[1]))
    held.settimeout(5)
    # A daemon that is full, or that closes the connection at once, is right.
    try:
        held.connect(place)
        held.sendall(said)
    except OSError:
        pass
    return held

held = [connect(place) for _ in range(count) for place in places]
print('held', flush=True)
while True:
    for place in places:
        held.pop(0).close()
        held.append(connect(place))
    time.sleep(0.005)
";

/// Holds its connections until it is dropped.
pub struct Holder(Child);

impl Holder {
    /// Holds `count` connections at each of these addresses and unix sockets. On each it says `said`
    /// and nothing more.
    pub fn start(count: usize, said: &[u8], places: &[String]) -> Holder {
        let said: String = said.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut child = Command::new("python3")
            .args(["-c", PROGRAM, &count.to_string(), &said])
            .args(places)
            .stdout(Stdio::piped())
            .spawn()
            .expect("run python3");
        let mut line = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert_eq!(line, "held\n");
        Holder(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
