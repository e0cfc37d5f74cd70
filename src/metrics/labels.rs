//! The labels whose values are known beforehand, as types, so that none can be misspelt and every
//! series begins at zero.

/// A label with a fixed set of values.
pub trait Label: Copy + PartialEq + 'static {
    /// Every value.
    const ALL: &'static [Self];

    /// Its stable name in metrics.
    fn as_str(self) -> &'static str;
}

/// Declares a label: each value with its meaning and its stable name.
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
        /// argon2 was computed.
        Argon2 = "argon2",
        /// The cache knew the right password.
        Cache = "cache",
        /// Refused before argon2: by the row's state, by the tag, or unknown.
        Early = "early",
    }
}

label! {
    /// What became of a message.
    MessageOutcome {
        /// The upstream took it.
        Accepted = "accepted",
        /// The client or the upstream went away before it was answered.
        Lost = "lost",
        /// Refused here: line ends or size.
        RefusedHere = "refused_here",
        /// The upstream refused it.
        RefusedUpstream = "refused_upstream",
    }
}

label! {
    /// How soon a credential expires.
    Within {
        /// Within 7 days.
        Week = "7d",
        /// Within 30 days.
        Month = "30d",
    }
}

label! {
    /// What the upstream said to a recipient.
    RecipientOutcome {
        /// It took the recipient.
        Accepted = "accepted",
        /// It refused the recipient, for now or for good.
        Refused = "refused",
    }
}

label! {
    /// Whose bytes they are, and which way they went.
    Flow {
        /// Read from a client.
        FromClient = "from_client",
        /// Read from the upstream.
        FromUpstream = "from_upstream",
        /// Written to a client.
        ToClient = "to_client",
        /// Written to the upstream.
        ToUpstream = "to_upstream",
    }
}

label! {
    /// Whether dialling the upstream succeeded.
    Dialled {
        /// There is a connection.
        Connected = "connected",
        /// There is none.
        Failed = "failed",
    }
}

label! {
    /// Why a TLS handshake failed.
    HandshakeFailure {
        /// The client refused the handshake by an alert, and not because of the certificate.
        Alert = "alert",
        /// The client refused the certificate by an alert.
        Certificate = "certificate",
        /// The client closed the connection midway.
        Gone = "gone",
        /// Nothing in common but version and cipher suite: no group or no kind of signature.
        Incompatible = "incompatible",
        /// No cipher suite in common.
        NoCipher = "no_cipher",
        /// No version in common.
        NoVersion = "no_version",
        /// The client sent neither TLS nor text.
        NotTls = "not_tls",
        /// Anything else.
        Other = "other",
        /// The client sent plain text to a port that begins with TLS.
        PlainText = "plain_text",
        /// A PROXY header came from an address that is not in `proxy_from`.
        ProxyHeader = "proxy_header",
        /// The handshake took too long.
        Timeout = "timeout",
        /// The client began with TLS on a port that begins in plain text.
        TlsFirst = "tls_first",
    }
}

label! {
    /// Why a PROXY header cannot be used.
    ProxyFailure {
        /// The connection ended inside the header.
        Incomplete = "incomplete",
        /// The header does not have the form that its version demands.
        Malformed = "malformed",
        /// Something else came in the header's place.
        Missing = "missing",
        /// The header is longer than a header may be.
        Oversized = "oversized",
        /// The header did not come, or not in whole, within `timeouts.proxy`.
        Timeout = "timeout",
        /// The header came from an address that is not in `proxy_from`.
        Untrusted = "untrusted",
    }
}

label! {
    /// What was asked of the store.
    StoreOperation {
        /// A request of the administration, with the hash of a password it makes.
        Administration = "administration",
        /// Writing last-used times.
        Flush = "flush",
        /// Finding a login's row.
        Lookup = "lookup",
        /// Looking for other processes' changes.
        Poll = "poll",
        /// Storing a hash at today's cost.
        Rehash = "rehash",
    }
}

label! {
    /// What failures are counted by.
    Scope {
        /// A client: an IPv4 address or an IPv6 /64.
        Address = "address",
        /// The network around it: an IPv4 /24 or an IPv6 /48.
        Network = "network",
    }
}

label! {
    /// Why a connection was closed before it was anybody's.
    Shed {
        /// Too many failed logins came from there.
        Banned = "banned",
        /// Too many connections from one client had not logged in.
        PerAddress = "per_address",
        /// Too many connections from one network had not logged in.
        PerNetwork = "per_network",
        /// Too many connections in all had not logged in.
        Unauthenticated = "unauthenticated",
    }
}

label! {
    /// What came of a login of somebody known.
    LoginOutcome {
        /// Accepted.
        Accepted = "accept",
        /// Refused.
        Refused = "reject",
    }
}
