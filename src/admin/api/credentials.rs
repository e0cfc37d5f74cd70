//! Credentials.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::admin::caller::Caller;
use crate::admin::changes::{Edit, Target};
use crate::admin::desk::Desk;
use crate::admin::extract::{Body, Condition, IdempotencyKey, IfMatch, Once, Path, Query};
use crate::admin::problem::Problem;
use crate::auth::issue::{self, Issued, LONGEST_OVERLAP, New};
use crate::policy;
use crate::sasl::Secret;
use crate::store::{
    self, Access, CredentialFilter, CredentialState, CredentialStatus, Rotation, Wanted,
};

use super::field::{
    Cursor, Limit, Name, Since, Time, Within, exposed, page, present, since_schema, whole,
    within_schema,
};
use super::limits::{CredentialLimits, CredentialLimitsChange, LimitUse, made as limits_made};
use super::organizations::InOrganization;
use super::reply::{Confidential, Created, List, Tagged};
use super::rules::{Rules, RulesChange, made as rules_made};

pub(super) fn routes() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new()
        .routes(routes!(list_credentials, create_credential))
        .routes(routes!(get_credential, edit_credential, delete_credential))
        .routes(routes!(rotate_credential))
        .routes(routes!(find_credential))
}

/// A credential, without its password.
#[derive(Debug, Serialize, ToSchema)]
pub struct Credential {
    /// UUIDv7.
    id: Uuid,
    /// What a client logs in with.
    username: String,
    /// The slug of its organization.
    organization: String,
    /// What people call it.
    name: Option<String>,
    status: Status,
    created_at: Time,
    /// When its password was last replaced.
    rotated_at: Option<Time>,
    /// Since when it is revoked, if it is.
    revoked_at: Option<Time>,
    /// From when on it is refused.
    expires_at: Option<Time>,
    /// Whether it is refused because of that now, whatever its status.
    expired: bool,
    /// Until when the password before the last rotation is right, too.
    previous_until: Option<Time>,
    /// The uses of that password since it was replaced; null if there was none.
    previous_used: Option<PasswordUsed>,
    /// The uses of the present password in an overlap since the last rotation; null if there was none.
    current_used: Option<PasswordUsed>,
    /// Its own limits.
    limits: CredentialLimits,
    /// As whom and from where it may be used.
    rules: Rules,
    /// Its latest login; null if there was none.
    last_used: Option<LastUsed>,
    /// Its latest message that the upstream took; null if there was none.
    last_message: Option<LastMessage>,
    /// How many sessions are logged in with it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    live_sessions: Option<usize>,
    /// How far each limit that holds is used up now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    limit_use: Option<Vec<LimitUse>>,
    /// Messages of the last 30 days with odd line ends, the latest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    odd_line_ends: Option<Vec<OddLineEnds>>,
}

/// Messages with an octet at which servers disagree where a line ends.
#[derive(Debug, Serialize, ToSchema)]
pub struct OddLineEnds {
    /// `bare_newline` or `nul`.
    octet: String,
    /// `normalized` or `refused`.
    action: String,
    /// The last one.
    at: Time,
    /// How many there were.
    count: u64,
}

/// Whether a credential may be used.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = CredentialStatus)]
pub enum Status {
    /// It may, unless it has expired.
    Active,
    /// It may not.
    Revoked,
}

/// Whether a credential is accepted now. Each credential is in one state.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = CredentialState)]
pub(super) enum StateNow {
    /// Accepted.
    Active,
    /// Refused because of its expiry alone.
    Expired,
    /// Revoked, whether it has expired or not.
    Revoked,
}

/// The latest login with a credential.
#[derive(Debug, Serialize, ToSchema)]
pub struct LastUsed {
    at: Time,
    /// The client's IP address.
    address: String,
    /// The version of TLS, if there was TLS.
    tls: Option<String>,
    /// The SASL mechanism.
    mechanism: String,
    /// What the client called itself.
    helo: String,
    /// How many logins there were in all.
    count: u64,
}

/// The latest message sent with a credential.
#[derive(Debug, Serialize, ToSchema)]
pub struct LastMessage {
    at: Time,
    /// How many messages there were in all.
    count: u64,
}

/// The latest use of one of the two passwords of an overlap.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct PasswordUsed {
    at: Time,
    /// The client's IP address.
    address: String,
    /// How many uses there were since the rotation.
    count: u64,
}

impl From<PasswordUsed> for store::PasswordUse {
    fn from(used: PasswordUsed) -> store::PasswordUse {
        store::PasswordUse {
            at: used.at.0,
            address: used.address,
            count: used.count,
        }
    }
}

impl From<&store::PasswordUse> for PasswordUsed {
    fn from(used: &store::PasswordUse) -> PasswordUsed {
        PasswordUsed {
            at: Time(used.at),
            address: used.address.clone(),
            count: used.count,
        }
    }
}

impl From<CredentialStatus> for Status {
    fn from(status: CredentialStatus) -> Status {
        match status {
            CredentialStatus::Active => Status::Active,
            CredentialStatus::Revoked => Status::Revoked,
        }
    }
}

impl From<Status> for CredentialStatus {
    fn from(status: Status) -> CredentialStatus {
        match status {
            Status::Active => CredentialStatus::Active,
            Status::Revoked => CredentialStatus::Revoked,
        }
    }
}

impl From<StateNow> for CredentialState {
    fn from(state: StateNow) -> CredentialState {
        match state {
            StateNow::Active => CredentialState::Active,
            StateNow::Expired => CredentialState::Expired,
            StateNow::Revoked => CredentialState::Revoked,
        }
    }
}

impl From<&store::Credential> for Credential {
    fn from(credential: &store::Credential) -> Credential {
        Credential {
            id: credential.id,
            username: credential.username.clone(),
            organization: credential.organization.clone(),
            name: credential.name.clone(),
            status: credential.status.into(),
            created_at: Time(credential.created_at),
            rotated_at: credential.rotated_at.map(Time),
            revoked_at: credential.revoked_at.map(Time),
            expires_at: credential.expires_at.map(Time),
            expired: credential.is_expired(crate::clock::now_ms()),
            previous_until: credential.previous_until.map(Time),
            previous_used: credential.previous_used.as_ref().map(Into::into),
            current_used: credential.current_used.as_ref().map(Into::into),
            last_used: credential.last_used.as_ref().map(|used| LastUsed {
                at: Time(used.at),
                address: used.address.clone(),
                tls: used.tls.clone(),
                mechanism: used.mechanism.clone(),
                helo: used.helo.clone(),
                count: used.count,
            }),
            last_message: credential.last_message.map(|message| LastMessage {
                at: Time(message.at),
                count: message.count,
            }),
            limits: (&credential.limits).into(),
            rules: (&credential.rules).into(),
            live_sessions: None,
            limit_use: None,
            odd_line_ends: None,
        }
    }
}

impl Credential {
    /// With what was odd about its messages.
    pub fn with_odd_line_ends(self, breaches: &[store::Breached]) -> Credential {
        let odd = breaches
            .iter()
            .filter(|breached| breached.is_odd_line_end());
        let odd = odd.map(|breached| OddLineEnds {
            octet: breached.reason.clone(),
            action: breached.action.clone(),
            at: Time(breached.tally.at),
            count: breached.tally.count,
        });
        Credential {
            odd_line_ends: Some(odd.collect()),
            ..self
        }
    }
}

/// A credential with its password, which is shown only in this answer.
#[derive(Serialize, ToSchema)]
pub struct IssuedCredential {
    #[serde(flatten)]
    credential: Credential,
    /// `sk_` and 32 characters. It is stored as a hash and cannot be shown again.
    #[serde(serialize_with = "exposed")]
    #[schema(value_type = String)]
    password: Secret,
}

impl From<&Issued> for IssuedCredential {
    fn from(issued: &Issued) -> IssuedCredential {
        IssuedCredential {
            credential: (&issued.credential).into(),
            password: issued.password.clone(),
        }
    }
}

/// A credential with its new password, which is shown only in this answer.
#[derive(Serialize, ToSchema)]
pub struct RotatedCredential {
    #[serde(flatten)]
    issued: IssuedCredential,
    overlap: Overlap,
    /// The uses of the password that was replaced in a kept overlap; null if there was none.
    replaced_used: Option<PasswordUsed>,
}

/// What a rotation did to the older passwords.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// The replaced password is right until `previous_until`.
    Began,
    /// An overlap ran already: the replaced password is wrong from now on, and the one before it is
    /// right until `previous_until`, as before.
    Kept,
    /// Every older password is wrong from now on.
    None,
}

impl From<&Issued> for RotatedCredential {
    fn from(issued: &Issued) -> RotatedCredential {
        let (overlap, replaced_used) = match &issued.rotation {
            Some(Rotation::Began) => (Overlap::Began, None),
            Some(Rotation::Kept { replaced_used }) => (Overlap::Kept, replaced_used.as_ref()),
            Some(Rotation::Ended) | None => (Overlap::None, None),
        };
        RotatedCredential {
            issued: issued.into(),
            overlap,
            replaced_used: replaced_used.map(Into::into),
        }
    }
}

fn view(desk: &Desk, credential: &store::Credential) -> Credential {
    let live = desk.system.sessions.count_of(&credential.username);
    Credential {
        live_sessions: Some(live),
        ..credential.into()
    }
}

fn tagged(desk: &Desk, credential: store::Credential) -> Result<Tagged<Credential>, Problem> {
    let uses = desk.uses_of(&credential)?;
    let body = Credential {
        limit_use: Some(uses.iter().map(Into::into).collect()),
        ..view(desk, &credential).with_odd_line_ends(&desk.breaches(&credential)?)
    };
    Ok(Tagged {
        revision: credential.revision(),
        body,
    })
}

fn shown_once(desk: &Desk, issued: &Issued) -> Confidential<Tagged<IssuedCredential>> {
    let live = desk.system.sessions.count_of(&issued.credential.username);
    let revision = issued.credential.revision();
    let mut body = IssuedCredential::from(issued);
    body.credential.live_sessions = Some(live);
    Confidential(Tagged { revision, body })
}

fn contradiction(error: policy::RulesError) -> Problem {
    Problem::field("#/rules", error.to_string())
}

/// The credential in the path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfCredential {
    /// The slug of its organization.
    pub(super) slug: String,
    /// Its username.
    pub(super) username: String,
}

impl OfCredential {
    fn target(self, revisions: Option<Vec<String>>) -> Target {
        Target {
            username: self.username,
            organization: Some(self.slug),
            revisions,
        }
    }

    pub(super) fn wanted<'a>(&'a self, revisions: Option<&'a [String]>) -> Wanted<'a> {
        Wanted {
            username: &self.username,
            organization: Some(&self.slug),
            revisions,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct CredentialsQuery {
    /// Only those in this state.
    #[param(inline)]
    status: Option<StateNow>,
    /// Only active ones that expire within so long from now.
    #[param(schema_with = within_schema)]
    expires_within: Option<Within>,
    /// Only those made before this time, or as long ago, and without a login or a message since.
    #[param(schema_with = since_schema)]
    unused_since: Option<Since>,
    /// Only those with this in their name or username.
    text: Option<String>,
    /// How many at most, 1 to 200; 50 if left out.
    #[serde(default)]
    #[param(inline, required = false)]
    limit: Limit,
    /// `next` of the page before.
    #[param(inline)]
    after: Option<Cursor>,
}

/// Lists an organization's credentials in the order in which they were made.
#[utoipa::path(get, path = "/organizations/{slug}/credentials", tag = "credentials", params(InOrganization, CredentialsQuery),
    responses((status = 200, description = "A page of them.", body = List<Credential>)))]
async fn list_credentials(
    State(desk): State<Arc<Desk>>,
    Path(at): Path<InOrganization>,
    Query(query): Query<CredentialsQuery>,
) -> Result<Json<List<Credential>>, Problem> {
    desk.run(move |desk| {
        let filter = CredentialFilter {
            organization: Some(&at.slug),
            status: None,
            state: query.status.map(Into::into),
            expires_until: query.expires_within.map(|end| end.0),
            unused_since: query.unused_since.map(|time| time.0),
            text: query.text.as_deref(),
        };
        let page = page(query.limit, query.after);
        let mut found = desk
            .system
            .store
            .credentials(filter, page)?
            .map(|row| desk.up_to_date(row));
        found.rows.retain(|row| filter.still_passes(row));
        Ok(Json(found.map(|row| view(desk, &row)).into()))
    })
    .await
}

/// What a credential starts with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewCredential {
    name: Option<Name>,
    /// From when on it is refused.
    expires_at: Option<Time>,
    /// Its own limits.
    #[serde(default)]
    limits: CredentialLimitsChange,
    /// As whom and from where it may be used.
    #[serde(default)]
    rules: RulesChange,
}

/// Makes a credential. Its password is in this answer, and in no other.
#[utoipa::path(post, path = "/organizations/{slug}/credentials", tag = "credentials",
    params(InOrganization, IdempotencyKey),
    request_body = NewCredential,
    responses((status = 201, description = "It was made.", body = IssuedCredential,
        headers(("Location" = String, description = "Where it is."), ("ETag" = String, description = "Its state, for If-Match.")))))]
async fn create_credential(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(at): Path<InOrganization>,
    Once(once, new): Once<NewCredential>,
) -> Result<Created<Confidential<Tagged<IssuedCredential>>>, Problem> {
    desk.change(move |desk| {
        let store = &desk.system.store;
        let editor = store.by(&caller.actor).once(once.as_ref());
        let limits = limits_made(&new.limits);
        let rules = rules_made(&new.rules).map_err(contradiction)?;
        let new = New {
            organization: &at.slug,
            name: new.name.as_ref().map(|name| name.0.as_str()),
            expires_at: new.expires_at.map(|time| time.0),
            limits: Some(&limits),
            rules: Some(&rules),
        };
        let issued = issue::issue(store, editor, desk.system.cost, new)?;
        Ok(Created {
            location: format!(
                "/api/v1/organizations/{}/credentials/{}",
                at.slug, issued.credential.username
            ),
            body: shown_once(desk, &issued),
        })
    })
    .await
}

/// Shows a credential.
#[utoipa::path(get, path = "/organizations/{slug}/credentials/{username}", tag = "credentials", params(OfCredential),
    responses((status = 200, description = "The credential.", body = Credential,
        headers(("ETag" = String, description = "Its state, for If-Match.")))))]
async fn get_credential(
    State(desk): State<Arc<Desk>>,
    Path(of): Path<OfCredential>,
) -> Result<Tagged<Credential>, Problem> {
    desk.run(move |desk| tagged(desk, desk.credential(of.wanted(None))?))
        .await
}

/// What to change; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CredentialChange {
    /// Null takes the name away.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Name>)]
    name: Option<Option<Name>>,
    status: Option<Status>,
    /// From when on it is refused; null means never.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Time>)]
    expires_at: Option<Option<Time>>,
    /// What to change of its limits.
    #[serde(default)]
    limits: CredentialLimitsChange,
    /// What to change of its rules.
    #[serde(default)]
    rules: RulesChange,
    /// End an overlap after a rotation now.
    #[serde(default)]
    end_overlap: bool,
    /// End its live sessions, too. Without this they go on, and the next login fails.
    #[serde(default)]
    disconnect: bool,
}

/// Renames, revokes, re-enables or expires a credential, or changes its limits and rules. It counts before this answers.
#[utoipa::path(patch, path = "/organizations/{slug}/credentials/{username}", tag = "credentials",
    params(OfCredential, IfMatch),
    request_body = CredentialChange,
    responses((status = 200, description = "The credential as it is now.", body = Credential,
        headers(("ETag" = String, description = "Its state, for If-Match.")))))]
async fn edit_credential(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(of): Path<OfCredential>,
    Condition(revisions): Condition,
    Body(change): Body<CredentialChange>,
) -> Result<Tagged<Credential>, Problem> {
    let limits = policy::LimitsChange::from(&change.limits);
    let rules = policy::RulesChange::from(&change.rules);
    let edit = Edit {
        name: change.name.map(|name| name.map(|name| name.0)),
        status: change.status.map(Into::into),
        expires_at: change.expires_at.map(|time| time.map(|time| time.0)),
        end_overlap: change.end_overlap,
        limits: Some(limits).filter(|limits| !limits.0.is_empty()),
        rules: Some(rules).filter(|rules| *rules != policy::RulesChange::default()),
    };
    let (target, disconnect) = (of.target(revisions), change.disconnect);
    let edited = desk.edit_credential(&caller.actor, target, edit, disconnect);
    let edited = edited.await?;
    desk.look_up(move |desk| tagged(desk, edited)).await
}

/// How to rotate.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Rotation)]
struct HowToRotate {
    /// How long the old password stays right, too: a number of seconds, or a span such as `7d`; at most 31 days. Left
    /// out, every older password is wrong at once. While an overlap runs, the length does not count: the previous
    /// password keeps its end, and the present one, which this replaces, is wrong at once. To keep that one instead,
    /// end the overlap first.
    #[serde(default, deserialize_with = "overlap")]
    #[schema(schema_with = overlap_schema)]
    overlap: Option<i64>,
    /// End its live sessions, too.
    #[serde(default)]
    disconnect: bool,
}

/// Gives a credential a new password, which is in this answer and in no other.
#[utoipa::path(post, path = "/organizations/{slug}/credentials/{username}/rotate", tag = "credentials",
    params(OfCredential, IfMatch, IdempotencyKey),
    request_body = HowToRotate,
    responses((status = 200, description = "The credential with its new password.", body = RotatedCredential,
        headers(("ETag" = String, description = "Its state, for If-Match.")))))]
async fn rotate_credential(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(of): Path<OfCredential>,
    Condition(revisions): Condition,
    Once(once, how): Once<HowToRotate>,
) -> Result<Confidential<Tagged<RotatedCredential>>, Problem> {
    let until = how.overlap.map(overlap_until).transpose()?;
    let target = of.target(revisions);
    let issued = desk.rotate(&caller.actor, target, until, how.disconnect, once);
    let issued = issued.await?;
    let Confidential(Tagged { revision, body }) = shown_once(&desk, &issued);
    let body = RotatedCredential {
        issued: body,
        ..RotatedCredential::from(&issued)
    };
    Ok(Confidential(Tagged { revision, body }))
}

/// Reads a length in milliseconds.
fn overlap<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let span = |text: &str| {
        let length = crate::clock::span(text)?;
        Some(i64::try_from(length.as_millis()).unwrap_or(i64::MAX))
    };
    let wrong = || D::Error::custom("overlap: write a number of seconds, or a span such as \"7d\"");
    match Option::<Value>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Value::String(text)) => span(&text).map(Some).ok_or_else(wrong),
        Some(number) => {
            let seconds = whole(number).map_err(|_| wrong())?;
            Ok(seconds.map(|seconds| i64::from(seconds) * 1_000))
        }
    }
}

fn overlap_schema() -> Schema {
    let seconds = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(LONGEST_OVERLAP / 1_000));
    let span = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^([1-9][0-9]?[hms]|[1-9]d|[12][0-9]d|3[01]d)$"))
        .examples(["7d"]);
    let null = ObjectBuilder::new().schema_type(Type::Null);
    let either = OneOfBuilder::new().item(seconds).item(span).item(null);
    either.build().into()
}

fn overlap_until(length: i64) -> Result<i64, Problem> {
    if (1..=LONGEST_OVERLAP).contains(&length) {
        return Ok(crate::clock::now_ms() + length);
    }
    let longest = LONGEST_OVERLAP / 1_000;
    Err(Problem::field(
        "#/overlap",
        format!("write 1 to {longest} seconds, or a span up to \"31d\""),
    ))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct DeleteCredential {
    /// End its live sessions, too.
    #[serde(default)]
    #[param(required = false)]
    disconnect: bool,
}

/// Deletes a credential for good.
#[utoipa::path(delete, path = "/organizations/{slug}/credentials/{username}", tag = "credentials",
    params(OfCredential, DeleteCredential, IfMatch),
    responses((status = 204, description = "It is gone.")))]
async fn delete_credential(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(of): Path<OfCredential>,
    Query(how): Query<DeleteCredential>,
    Condition(revisions): Condition,
) -> Result<StatusCode, Problem> {
    let target = of.target(revisions);
    let deleted = desk.delete_credential(&caller.actor, target, how.disconnect);
    deleted.await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct ByUsername {
    /// Its username.
    username: String,
}

/// Finds a credential in whatever organization it is.
#[utoipa::path(get, path = "/credentials/{username}", tag = "credentials", params(ByUsername),
    responses((status = 200, description = "The credential.", body = Credential,
        headers(("ETag" = String, description = "Its state, for If-Match.")))))]
async fn find_credential(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(by): Path<ByUsername>,
) -> Result<Tagged<Credential>, Problem> {
    desk.run(move |desk| {
        let own = desk.organization_of(&caller, &by.username, Access::Read)?;
        let wanted = Wanted {
            organization: own.as_deref(),
            ..by.username.as_str().into()
        };
        tagged(desk, desk.credential(wanted)?)
    })
    .await
}
