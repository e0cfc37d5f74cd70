//! Another process that keeps the store locked: Debian's sqlite3, in a transaction that it does not
//! end.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The lock. Dropped, it is gone with all that was changed under it.
pub struct Lock {
    sqlite: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Lock {
    /// Keeps all other processes from writing, and none from reading.
    pub fn take(store: &Path) -> Lock {
        let sqlite = Command::new("sqlite3")
            .arg("-bail")
            .arg(store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut sqlite = sqlite.expect("run sqlite3");
        let output = BufReader::new(sqlite.stdout.take().expect("a pipe")).lines();
        let mut lock = Lock {
            input: sqlite.stdin.take().expect("a pipe"),
            output,
            sqlite,
        };
        lock.run(".timeout 15000");
        lock.run("BEGIN EXCLUSIVE;");
        lock
    }

    /// Carries out a statement and waits for its end.
    pub fn run(&mut self, statement: &str) {
        writeln!(self.input, "{statement}\n.print done").expect("sqlite3 reads");
        let said = self.output.next().expect("sqlite3 goes on").unwrap();
        assert_eq!(said, "done", "{statement}");
    }

    /// Ends the transaction.
    pub fn commit(mut self) {
        self.run("COMMIT;");
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.sqlite.kill();
        let _ = self.sqlite.wait();
    }
}
