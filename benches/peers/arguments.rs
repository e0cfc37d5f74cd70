//! What may be typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum as _};

use crate::column::Column;
use crate::growth::Part;
use crate::peer::Kind;

/// Measures Gatepost and its peers side by side.
#[derive(Parser)]
#[command(name = "peers")]
pub struct Arguments {
    /// The Gatepost to measure [default: the one that was built with the benches, which has what the tests want besides]
    #[arg(long, value_name = "PATH", global = true)]
    pub gatepost: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Subcommand)]
pub enum Command {
    /// All columns for all peers, interleaved, in several rounds: a table, and the raw figures as JSON
    Run(Run),
    /// More credentials, sessions, cores and logins: tables, plots, and the raw figures as JSON
    Growth(Growth),
    /// Good clients beside attackers of each kind
    Siege(Siege),
    /// The bare relay itself, until it is ended
    #[command(hide = true)]
    Relay {
        listen: SocketAddr,
        upstream: SocketAddr,
        directory: PathBuf,
    },
}

#[derive(Args)]
pub struct Run {
    /// Rounds, of which the median is taken
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// The work of a round in percent of the usual
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub scale: u64,
    /// Only these, instead of all
    #[arg(long = "peer", value_name = "PEER", value_parser = kind)]
    pub peers: Vec<Kind>,
    /// Only these, instead of all
    #[arg(long = "column", value_name = "COLUMN")]
    pub columns: Vec<Column>,
    #[command(flatten)]
    pub way: Way,
    /// Where the raw figures go [default: benches/results/TIME.json]
    #[arg(long)]
    pub output: Option<PathBuf>,
}

/// How sessions are secured.
#[derive(Args, Clone, Copy)]
pub struct Way {
    /// By STARTTLS where a peer has it, instead of TLS from the first byte
    #[arg(long)]
    pub starttls: bool,
    /// Resume TLS sessions, instead of a full handshake each time
    #[arg(long)]
    pub resumption: bool,
}

#[derive(Args)]
pub struct Growth {
    /// Only these, instead of all
    #[arg(long = "part", value_name = "PART")]
    pub parts: Vec<Part>,
    /// How much there is of everything, in percent of the usual
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub scale: u64,
    /// Put tables and plots into benches/README.md and benches/plots
    #[arg(long)]
    pub readme: bool,
    /// Where the raw figures go, with the plots beside them [default: benches/results/TIME-growth.json]
    #[arg(long)]
    pub output: Option<PathBuf>,
}

#[derive(Args)]
pub struct Siege {
    /// How long each kind of attack goes on
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// Connections that the attackers hold at a time
    #[arg(long, default_value_t = 1500)]
    pub attackers: usize,
    /// Addresses that they come from
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=6000))]
    pub addresses: u64,
    /// How long an attacker that was shed stays away
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 250)]
    pub rest: u64,
    /// On how many cores Gatepost runs, with everybody else on the others [default: all, with everybody else]
    #[arg(long)]
    pub cores: Option<usize>,
    /// Put the table into benches/README.md
    #[arg(long)]
    pub readme: bool,
    /// Where the raw figures go [default: benches/results/TIME-siege.json]
    #[arg(long)]
    pub output: Option<PathBuf>,
}

fn kind(text: &str) -> Result<Kind, String> {
    let found = Kind::ALL.into_iter().find(|kind| kind.name() == text);
    found.ok_or_else(|| {
        let names = Kind::ALL.map(Kind::name).join(", ");
        format!("one of {names}")
    })
}

/// Those that were asked for, in their own order; all where none was.
pub fn columns(wanted: &[Column]) -> Vec<Column> {
    let all = Column::value_variants().iter().copied();
    all.filter(|column| wanted.is_empty() || wanted.contains(column))
        .collect()
}

/// As [`columns`].
pub fn peers(wanted: &[Kind]) -> Vec<Kind> {
    let all = Kind::ALL.into_iter();
    all.filter(|kind| wanted.is_empty() || wanted.contains(kind))
        .collect()
}
