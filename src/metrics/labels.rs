//! Labels with a fixed set of values, as types: no value can be misspelt, and every series starts
//! at zero.

/// A label with a fixed set of values.
pub trait Label: Copy + PartialEq + 'static {
    const ALL: &'static [Self];

    /// Returns the stable name in metrics.
    fn as_str(self) -> &'static str;
}

/// Declares a label: each value with its meaning and stable name.
macro_rules! label {
    ($(#[$meaning_of_all:meta])* $name:ident { $($(#[$meaning:meta])* $value:ident = $text:literal,)* }) => {
        $(#[$meaning_of_all])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$meaning])* $value,)*
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$value),*];

            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)*
                }
            }
        }
    };
}

label! {
    /// How a verdict was reached.
    Path {
        Argon2 = "argon2",
        /// The cache held the accepted password.
        Cache = "cache",
        /// Rejected before argon2: by the row's state, by the tag, or as unknown.
        Early = "early",
    }
}

label! {
    MessageOutcome {
        Accepted = "accepted",
        /// The client or the upstream left before the answer.
        Lost = "lost",
        /// Rejected by Gatepost for line ends or size.
        RefusedHere = "refused_here",
        RefusedUpstream = "refused_upstream",
    }
}

label! {
    /// How soon a credential expires.
    Within {
        Week = "7d",
        Month = "30d",
    }
}

label! {
    RecipientOutcome {
        Accepted = "accepted",
        /// Rejected, temporarily or permanently.
        Refused = "refused",
    }
}

label! {
    /// The direction of octets.
    Flow {
        FromClient = "from_client",
        FromUpstream = "from_upstream",
        ToClient = "to_client",
        ToUpstream = "to_upstream",
    }
}

label! {
    Dialled {
        Connected = "connected",
        Failed = "failed",
    }
}

label! {
    /// Why a TLS handshake failed.
    HandshakeFailure {
        /// The client sent an alert unrelated to the certificate.
        Alert = "alert",
        /// The client rejected the certificate with an alert.
        Certificate = "certificate",
        /// The client closed the connection midway.
        Gone = "gone",
        /// No common group or signature scheme.
        Incompatible = "incompatible",
        NoCipher = "no_cipher",
        NoVersion = "no_version",
        /// The client sent neither TLS nor text.
        NotTls = "not_tls",
        Other = "other",
        /// Plain text on a port with implicit TLS.
        PlainText = "plain_text",
        /// A PROXY header from an address outside `proxy_from`.
        ProxyHeader = "proxy_header",
        Timeout = "timeout",
        /// A TLS handshake on a port that starts in plain text.
        TlsFirst = "tls_first",
    }
}

label! {
    /// Why a PROXY header is unusable.
    ProxyFailure {
        /// The connection ended inside the header.
        Incomplete = "incomplete",
        Malformed = "malformed",
        /// The first octets belong to no header.
        Missing = "missing",
        Oversized = "oversized",
        /// No complete header arrived within `timeouts.proxy`.
        Timeout = "timeout",
        /// The header came from an address outside `proxy_from`.
        Untrusted = "untrusted",
    }
}

label! {
    StoreOperation {
        /// A request to the admin server, including the hash of a new password.
        Administration = "administration",
        Flush = "flush",
        /// Finding the row of a login.
        Lookup = "lookup",
        /// Checking for changes by other processes.
        Poll = "poll",
        /// Storing a hash at the configured cost.
        Rehash = "rehash",
    }
}

label! {
    /// The unit in which the guard counts failures.
    Scope {
        /// A client: an IPv4 address or an IPv6 /64.
        Address = "address",
        /// The surrounding network: an IPv4 /24 or an IPv6 /48.
        Network = "network",
    }
}

label! {
    /// Why the guard rejected a connection.
    Shed {
        /// Too many failed logins from the client's network.
        Banned = "banned",
        /// Too many connections of a client have not logged in.
        PerAddress = "per_address",
        /// Too many connections of a network have not logged in.
        PerNetwork = "per_network",
        /// Too many connections in total have not logged in.
        Unauthenticated = "unauthenticated",
    }
}

label! {
    /// The outcome of an existing credential's login.
    LoginOutcome {
        Accepted = "accept",
        Refused = "reject",
    }
}
