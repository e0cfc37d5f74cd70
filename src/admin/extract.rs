//! What is read from a request: path, query, conditions and body, each with its own way of saying what is wrong.

use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{CONTENT_TYPE, HeaderName, IF_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::IntoParams;

use crate::store;

use super::problem::{Code, FieldError, Problem};

/// The largest body, in octets; what is asked for here are a few short fields.
const BODY_SIZE: usize = 64 * 1024;

/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest Idempotency-Key.
const IDEMPOTENCY_KEY_LENGTH: usize = 255;

/// How many wrong fields are told of. A body has room for thousands, each of which costs a look at the whole.
const TOLD_ERRORS: usize = 20;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What the path names.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub(super) struct Path<T>(pub(super) T);

/// What the query asks for.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub(super) struct Query<T>(pub(super) T);

/// How [`Condition`] is described.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described; Condition reads it")]
pub(super) struct IfMatch {
    /// Carry it out only if the ETag is one of these, or, with `*`, whatever it is.
    #[param(
        rename = "If-Match",
        pattern = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#
    )]
    if_match: Option<String>,
}

/// How [`Once`] is described.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described; Once reads it")]
pub(super) struct IdempotencyKey {
    /// Under this name the request is carried out only once within a day. Repeated, it answers 409 with the id of what it
    /// made or changed, and with where that is as Location, never with a password or a secret. With another path or body it
    /// answers 422.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]+$"
    )]
    idempotency_key: Option<String>,
}

/// If-Match: the revisions that the caller knows of, or whatever there is.
pub(super) struct Condition(pub(super) Option<Vec<String>>);

impl<S: Sync> FromRequestParts<S> for Condition {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Condition, Problem> {
        let mut revisions = Vec::new();
        for header in parts.headers.get_all(IF_MATCH) {
            if header.as_bytes().trim_ascii() == b"*" {
                return Ok(Condition(None)); // what is not there is not found anyway
            }
            revisions.extend(entity_tags(header).ok_or_else(|| {
                Problem::new(
                    Code::InvalidHeader,
                    "If-Match: write the ETag as it came, in its quotes",
                )
            })?);
        }
        let any = parts.headers.contains_key(IF_MATCH);
        Ok(Condition(any.then_some(revisions)))
    }
}

/// The opaque parts of the strong tags in a list; a weak one never matches here (RFC 9110 section 13.1.1).
fn entity_tags(header: &HeaderValue) -> Option<Vec<String>> {
    let tag = |text: &str| {
        let (strong, quoted) = match text.strip_prefix("W/") {
            Some(weak) => (false, weak),
            None => (true, text),
        };
        let opaque = quoted.strip_prefix('"')?.strip_suffix('"')?;
        let plain = opaque
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'"');
        plain.then(|| strong.then(|| opaque.to_owned()))
    };
    let tags = header
        .to_str()
        .ok()?
        .split(',')
        .map(|text| tag(text.trim()));
    Some(
        tags.collect::<Option<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect(),
    )
}

/// A JSON body, as [`Body`] reads it, and the Idempotency-Key of the request, if it has one.
pub(super) struct Once<T>(pub(super) Option<store::Once>, pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Once<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let key = idempotency_key(request.headers())?;
        let query = request.uri().query().unwrap_or_default();
        let target = format!("{} {}?{query}", request.method(), request.uri().path());
        let value = read_json(BODY_SIZE, request).await?;
        let once = key.map(|key| {
            let mut hasher = blake3::Hasher::new();
            // Without spaces and in one order, however it was written.
            for part in [target, value.to_string()] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part.as_bytes());
            }
            let request = hasher.finalize().into();
            store::Once { key, request }
        });
        Ok(Self(once, typed(value)?))
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    let key = key.to_str().ok().filter(|key| {
        (1..=IDEMPOTENCY_KEY_LENGTH).contains(&key.len())
            && key.bytes().all(|byte| byte.is_ascii_graphic())
    });
    match key {
        Some(key) if keys.next().is_none() => Ok(Some(key.to_owned())),
        _ => Err(Problem::new(
            Code::InvalidHeader,
            format!("Idempotency-Key: send one of 1 to {IDEMPOTENCY_KEY_LENGTH} ASCII characters"),
        )),
    }
}

/// A JSON body of at most `SIZE` octets; one that is left out is an empty object.
pub(super) struct Body<T, const SIZE: usize = BODY_SIZE>(pub(super) T);

impl<S: Sync, T: DeserializeOwned, const SIZE: usize> FromRequest<S> for Body<T, SIZE> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        typed(read_json(SIZE, request).await?).map(Self)
    }
}

async fn read_json(size: usize, request: Request) -> Result<Value, Problem> {
    let kind = request.headers().get(CONTENT_TYPE).cloned();
    let bytes = read_up_to(size, request.into_body()).await?;
    if kind.is_none() && bytes.is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    require_json(kind.as_ref())?;
    json(&bytes)
}

fn require_json(kind: Option<&HeaderValue>) -> Result<(), Problem> {
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    let known = ["application/json", "application/merge-patch+json"];
    if known
        .iter()
        .any(|known| essence.eq_ignore_ascii_case(known))
    {
        return Ok(());
    }
    Err(Problem::new(
        Code::UnsupportedMediaType,
        "send JSON, and say so: Content-Type: application/json",
    ))
}

/// Reads a body, which is bounded in size and time.
pub(super) async fn read(body: axum::body::Body) -> Result<Vec<u8>, Problem> {
    read_up_to(BODY_SIZE, body).await
}

async fn read_up_to(size: usize, body: axum::body::Body) -> Result<Vec<u8>, Problem> {
    let bytes = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, size));
    let bytes = bytes.await.map_err(|_| {
        Problem::new(
            Code::TooSlow,
            format!("the body took longer than {BODY_TIMEOUT:?}"),
        )
    })?;
    Ok(bytes
        .map_err(|error| match std::error::Error::source(&error) {
            Some(limit) if limit.is::<http_body_util::LengthLimitError>() => Problem::new(
                Code::TooLarge,
                format!("the body has more than {size} octets"),
            ),
            _ => Problem::new(Code::MalformedBody, "the body broke off"),
        })?
        .to_vec())
}

fn json(bytes: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        Problem::new(
            Code::MalformedBody,
            format!("the body is not JSON: {error}"),
        )
    })
}

/// Reads every field; where some are wrong, tells of each, up to [`TOLD_ERRORS`].
fn typed<T: DeserializeOwned>(mut value: Value) -> Result<T, Problem> {
    let mut errors = Vec::new();
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(&value) {
            Ok(parsed) if errors.is_empty() => return Ok(parsed),
            Ok(_) => return Err(Problem::fields(errors)),
            Err(error) => error,
        };
        let field = match error.path().iter().next() {
            Some(serde_path_to_error::Segment::Map { key }) => Some(key.clone()),
            _ => None,
        };
        // Without the wrong field the others can be looked at; a missing one is the last thing to be found.
        let removed = match (&field, &mut value) {
            (Some(field), Value::Object(fields)) => fields.remove(field).is_some(),
            _ => false,
        };
        if removed || errors.is_empty() {
            errors.push(FieldError {
                pointer: field
                    .map_or_else(|| "#".to_owned(), |field| format!("#/{}", escape(&field))),
                detail: error.into_inner().to_string(),
            });
        }
        if !removed || errors.len() == TOLD_ERRORS {
            return Err(Problem::fields(errors));
        }
    }
}

/// As JSON pointers write it (RFC 6901 section 3), in a URI fragment.
fn escape(field: &str) -> String {
    let mut escaped = String::new();
    for byte in field.bytes() {
        match byte {
            b'~' => escaped.push_str("~0"),
            b'/' => escaped.push_str("~1"),
            b'-' | b'.' | b'_' => escaped.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
        typed(json(bytes)?)
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        name: String,
        #[serde(default)]
        size: u8,
    }

    fn wrong(body: &str) -> Vec<(String, String)> {
        let document =
            serde_json::to_value(parse::<Sample>(body.as_bytes()).unwrap_err().document().1);
        let document = document.unwrap();
        let errors = document["errors"].as_array().cloned().unwrap_or_default();
        let text = |error: &Value, key: &str| error[key].as_str().unwrap().to_owned();
        errors
            .iter()
            .map(|error| (text(error, "pointer"), text(error, "detail")))
            .collect()
    }

    #[test]
    fn every_wrong_field_is_named() {
        let fields = |body| {
            wrong(body)
                .into_iter()
                .map(|(pointer, _)| pointer)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            fields(r#"{"name": 1, "size": 300, "colour": 2}"#),
            ["#/colour", "#/name", "#/size"]
        );
        assert_eq!(fields(r#"{"a/b~ c": 1, "name": ""}"#), ["#/a~1b~0%20c"]);
        assert_eq!(
            wrong("{}"),
            [("#".to_owned(), "missing field `name`".to_owned())]
        );
        assert_eq!(fields("[]"), ["#"]);
        let sample: Sample = parse(br#"{"name": "x", "size": 3}"#).unwrap();
        assert_eq!((sample.name.as_str(), sample.size), ("x", 3));
    }

    #[test]
    fn no_more_wrong_fields_are_told_than_anybody_reads() {
        let fields: Vec<_> = (0..1_000).map(|field| format!("\"{field}\":0")).collect();
        let body = format!("{{{}}}", fields.join(","));
        assert_eq!(wrong(&body).len(), TOLD_ERRORS);
    }

    #[test]
    fn what_is_not_json_is_told_apart() {
        let problem = parse::<Sample>(b"{").unwrap_err();
        assert_eq!(problem.code, Code::MalformedBody);
    }

    #[test]
    fn entity_tags_are_read_as_they_are_written() {
        let read = |text: &str| entity_tags(&HeaderValue::from_str(text).unwrap());
        assert_eq!(read("\"a\"").unwrap(), ["a"]);
        assert_eq!(read("\"a\" , W/\"b\",\"c\"").unwrap(), ["a", "c"]);
        for wrong in ["a", "\"a", "a\"", "\"a\"b\"", "", "\"a\",", "w/\"a\""] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
