//! PLAIN (RFC 4616) and LOGIN as a single exchange of challenges and responses.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{Credentials, Secret};

/// The longest base64 response read, in octets without CRLF (RFC 4954, 4: at least 12,288).
pub const MAX_RESPONSE: usize = 12_288;

/// The longest username and password of a credential, in octets (RFC 4616 asks for at least 255). A
/// client's longer field is cut a single octet beyond: the verification then rejects the field like
/// any wrong value, in equal time and at equal cost.
const MAX_FIELD: usize = 255;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Username, then password, each on its own line; no RFC, but widespread among printers.
    Login,
    /// RFC 4616, the preferred mechanism.
    Plain,
}

impl Mechanism {
    /// In the order of the offer.
    pub const ALL: [Self; 2] = [Self::Plain, Self::Login];

    /// Parses a mechanism's name in any case (RFC 4422, 3.1).
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|mechanism| name.eq_ignore_ascii_case(mechanism.as_str().as_bytes()))
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Login => "LOGIN",
            Self::Plain => "PLAIN",
        }
    }
}

/// An exchange that waits for the client's next response.
#[derive(Debug)]
pub struct Exchange(State);

#[derive(Debug)]
enum State {
    LoginPassword { username: String },
    LoginUsername,
    Plain,
}

/// The next step of an exchange.
#[derive(Debug)]
pub enum Step {
    /// Send the challenge (base64, without the `334 `) and pass the response to the exchange.
    Challenge(&'static str, Exchange),
    Done(Credentials),
}

/// Why an exchange ended without credentials. The client is always at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    #[error("the response is not base64")]
    BadEncoding,
    #[error("the client cancelled")]
    Cancelled,
    /// Base64 of a malformed PLAIN message, or an empty field.
    #[error("the response is malformed")]
    Malformed,
    /// The response exceeds [`MAX_RESPONSE`] octets.
    #[error("the response is too long")]
    TooLong,
}

impl Exchange {
    /// Starts an exchange, with the client's initial response if present. For LOGIN an initial
    /// response is the username, as all clients intend.
    pub fn start(mechanism: Mechanism, initial: Option<&[u8]>) -> Result<Step, ExchangeError> {
        match (mechanism, initial) {
            (Mechanism::Plain, None) => Ok(Step::Challenge("", Self(State::Plain))),
            (Mechanism::Login, None) => {
                Ok(Step::Challenge("VXNlcm5hbWU6", Self(State::LoginUsername)))
            }
            // RFC 4954, 4: an empty initial response is a single equals sign.
            (_, Some(b"=")) => Err(ExchangeError::Malformed),
            (Mechanism::Plain, Some(response)) => Self(State::Plain).respond(response),
            (Mechanism::Login, Some(response)) => Self(State::LoginUsername).respond(response),
        }
    }

    /// Processes the client's next response, given without CRLF.
    pub fn respond(self, response: &[u8]) -> Result<Step, ExchangeError> {
        let decoded = decode(response)?;
        match self.0 {
            State::LoginUsername => {
                let username = text(&decoded)?;
                Ok(Step::Challenge(
                    "UGFzc3dvcmQ6",
                    Self(State::LoginPassword { username }),
                ))
            }
            State::LoginPassword { username } => Ok(Step::Done(Credentials {
                mechanism: Mechanism::Login,
                username,
                password: password(&decoded)?,
                authzid: None,
            })),
            State::Plain => plain(&decoded).map(Step::Done),
        }
    }
}

fn decode(response: &[u8]) -> Result<Zeroizing<Vec<u8>>, ExchangeError> {
    if response == b"*" {
        return Err(ExchangeError::Cancelled);
    }
    if response.len() > MAX_RESPONSE {
        return Err(ExchangeError::TooLong);
    }
    STANDARD
        .decode(response)
        .map(Zeroizing::new)
        .map_err(|_| ExchangeError::BadEncoding)
}

/// RFC 4616, 2: `[authzid] NUL authcid NUL passwd`, and no further NUL.
fn plain(message: &[u8]) -> Result<Credentials, ExchangeError> {
    let mut fields = message.split(|&byte| byte == 0);
    let (Some(authzid), Some(authcid), Some(passwd), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(ExchangeError::Malformed);
    };
    let username = text(authcid)?;
    let authzid = match authzid {
        b"" => None,
        authzid if authzid == authcid => None,
        authzid => Some(text(authzid)?),
    };
    Ok(Credentials {
        mechanism: Mechanism::Plain,
        username,
        password: password(passwd)?,
        authzid,
    })
}

fn text(field: &[u8]) -> Result<String, ExchangeError> {
    let text = std::str::from_utf8(field).map_err(|_| ExchangeError::Malformed)?;
    match text {
        "" => Err(ExchangeError::Malformed),
        text => Ok(text[..text.ceil_char_boundary(MAX_FIELD + 1)].to_owned()),
    }
}

fn password(field: &[u8]) -> Result<Secret, ExchangeError> {
    match field {
        [] => Err(ExchangeError::Malformed),
        field => Ok(Secret::new(&field[..field.len().min(MAX_FIELD + 1)])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(message: &[u8]) -> Vec<u8> {
        STANDARD.encode(message).into_bytes()
    }

    fn start_plain(message: &[u8]) -> Result<Credentials, ExchangeError> {
        match Exchange::start(Mechanism::Plain, Some(&encode(message)))? {
            Step::Done(credentials) => Ok(credentials),
            Step::Challenge(..) => panic!("PLAIN asks for nothing after its message"),
        }
    }

    #[test]
    fn plain_reads_its_three_fields() {
        let credentials = start_plain(b"\0user\0pass").unwrap();
        assert_eq!(credentials.username, "user");
        assert_eq!(credentials.password.expose(), b"pass");
        assert_eq!(credentials.authzid, None);
    }

    #[test]
    fn plain_ignores_an_authzid_equal_to_the_username() {
        assert_eq!(start_plain(b"user\0user\0pass").unwrap().authzid, None);
        assert_eq!(
            start_plain(b"boss\0user\0pass").unwrap().authzid.as_deref(),
            Some("boss")
        );
    }

    #[test]
    fn plain_rejects_other_than_three_fields() {
        for message in [
            b"".as_slice(),
            b"user",
            b"\0user",
            b"\0user\0pass\0",
            b"\0\0pass",
            b"\0user\0",
            b"\0us\xffer\0pass",
        ] {
            assert_eq!(
                start_plain(message).unwrap_err(),
                ExchangeError::Malformed,
                "{message:?}"
            );
        }
    }

    #[test]
    fn overlong_field_is_cut_beyond_any_credential() {
        for length in [256, 257, 1500, 9000] {
            let long = "x".repeat(length);
            let credentials = start_plain(format!("\0user\0{long}").as_bytes()).unwrap();
            assert_eq!(credentials.password.expose(), "x".repeat(256).as_bytes());
            let credentials = start_plain(format!("\0{long}\0pass").as_bytes()).unwrap();
            assert_eq!(credentials.username, "x".repeat(256));
            let credentials = start_plain(format!("{long}\0user\0pass").as_bytes()).unwrap();
            assert!(credentials.authzid.is_some());
        }
        let credentials = start_plain(format!("\0{}\0pass", "\u{e9}x".repeat(200)).as_bytes());
        assert_eq!(
            credentials.unwrap().username.len(),
            257,
            "at an end of a character"
        );
        let longest = "x".repeat(255);
        let credentials = start_plain(format!("\0{longest}\0{longest}").as_bytes()).unwrap();
        assert_eq!(credentials.username, longest);
        assert_eq!(credentials.password.expose(), longest.as_bytes());
    }

    #[test]
    fn login_asks_for_username_then_password() {
        let Step::Challenge("VXNlcm5hbWU6", exchange) =
            Exchange::start(Mechanism::Login, None).unwrap()
        else {
            panic!("LOGIN asks for the username first");
        };
        let Step::Challenge("UGFzc3dvcmQ6", exchange) = exchange.respond(&encode(b"user")).unwrap()
        else {
            panic!("LOGIN asks for the password second");
        };
        let Step::Done(credentials) = exchange.respond(&encode(b"pass")).unwrap() else {
            panic!("LOGIN ends with the password");
        };
        assert_eq!(
            (credentials.username.as_str(), credentials.password.expose()),
            ("user", &b"pass"[..])
        );
    }

    #[test]
    fn base64_must_be_canonical() {
        for response in [
            "AHVzZXIAcGFzcw=",
            "AHVz ZXIAcGFzcw==",
            "AHVzZXIAcGFzcx==",
            "@@@@",
        ] {
            let error = Exchange::start(Mechanism::Plain, Some(response.as_bytes())).unwrap_err();
            assert_eq!(error, ExchangeError::BadEncoding, "{response}");
        }
    }

    #[test]
    fn star_cancels_and_overlong_response_fails() {
        let respond = |response: &[u8]| Exchange(State::Plain).respond(response).unwrap_err();
        assert_eq!(respond(b"*"), ExchangeError::Cancelled);
        assert_eq!(respond(&[b'A'; MAX_RESPONSE + 4]), ExchangeError::TooLong);
    }
}
