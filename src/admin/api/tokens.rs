//! Admin tokens.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::admin::caller::Caller;
use crate::admin::desk::Desk;
use crate::admin::extract::{IdempotencyKey, Once, Path, Query};
use crate::admin::problem::Problem;
use crate::auth::token::{self, IssuedToken};
use crate::sasl::Secret;
use crate::store::{self, Access, Kind, StoreError};

use super::field::{Cursor, Limit, Name, Scope, Time, exposed, page};
use super::reply::{Confidential, Created, List};

pub(super) fn routes() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new()
        .routes(routes!(list_tokens, create_token))
        .routes(routes!(get_token))
        .routes(routes!(revoke_token))
}

/// An admin token, without its secret.
#[derive(Serialize, ToSchema)]
pub struct Token {
    /// UUIDv7.
    id: Uuid,
    /// What people call it.
    name: String,
    scope: Scope,
    created_at: Time,
    /// From when on it is refused.
    expires_at: Option<Time>,
    /// Since when it is revoked, if it is.
    revoked_at: Option<Time>,
    /// When it was last used.
    last_used_at: Option<Time>,
    /// The IP address it was last used from; null over the unix socket.
    last_used_address: Option<String>,
}

impl From<store::Token> for Token {
    fn from(token: store::Token) -> Token {
        Token {
            id: token.id,
            name: token.name,
            scope: Scope(token.scope),
            created_at: Time(token.created_at),
            expires_at: token.expires_at.map(Time),
            revoked_at: token.revoked_at.map(Time),
            last_used_at: token.last_used_at.map(Time),
            last_used_address: token.last_used_address,
        }
    }
}

/// A token with its secret, which is shown only in this answer.
#[derive(Serialize, ToSchema)]
#[schema(as = IssuedToken)]
pub struct NewlyIssued {
    #[serde(flatten)]
    token: Token,
    /// `gp_` and 40 characters. It is stored as a hash and cannot be shown again.
    #[serde(serialize_with = "exposed")]
    #[schema(value_type = String)]
    secret: Secret,
}

impl From<IssuedToken> for NewlyIssued {
    fn from(issued: IssuedToken) -> NewlyIssued {
        NewlyIssued {
            token: issued.token.into(),
            secret: issued.secret,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct TokensQuery {
    /// Only those of the organization with this slug.
    organization: Option<String>,
    /// How many at most, 1 to 200; 50 if left out.
    #[serde(default)]
    #[param(inline, required = false)]
    limit: Limit,
    /// `next` of the page before.
    #[param(inline)]
    after: Option<Cursor>,
}

/// Lists tokens, revoked ones too, in the order in which they were made.
#[utoipa::path(get, path = "/tokens", tag = "tokens", params(TokensQuery),
    responses((status = 200, description = "A page of them.", body = List<Token>)))]
async fn list_tokens(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Query(query): Query<TokensQuery>,
) -> Result<Json<List<Token>>, Problem> {
    let organizations = caller.narrow(query.organization)?;
    desk.run(move |desk| {
        let page = page(query.limit, query.after);
        let tokens = desk.system.store.tokens(organizations.as_deref(), page)?;
        Ok(Json(
            tokens
                .map(|token| Token::from(desk.token_up_to_date(token)))
                .into(),
        ))
    })
    .await
}

/// What a token starts with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    name: Name,
    scope: Scope,
    /// From when on it is refused; left out, it is the caller's own end, if that has one.
    expires_at: Option<Time>,
}

/// Makes a token that may do no more, and no longer, than the caller. Its secret is in this answer, and in no other.
#[utoipa::path(post, path = "/tokens", tag = "tokens",
    params(IdempotencyKey),
    request_body = NewToken,
    responses((status = 201, description = "It was made.", body = NewlyIssued,
        headers(("Location" = String, description = "Where it is.")))))]
async fn create_token(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Once(once, new): Once<NewToken>,
) -> Result<Created<Confidential<Json<NewlyIssued>>>, Problem> {
    caller.require(&new.scope.0)?;
    let expires_at = caller.bounded(new.expires_at.map(|time| time.0))?;
    desk.change(move |desk| {
        let editor = desk.system.store.by(&caller.actor).once(once.as_ref());
        let issued = token::issue(editor, &new.name.0, &new.scope.0, expires_at)?;
        Ok(Created {
            location: format!("/api/v1/tokens/{}", issued.token.id),
            body: Confidential(Json(issued.into())),
        })
    })
    .await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct ById {
    /// The token's id.
    id: Uuid,
}

/// Shows a token, without its secret.
#[utoipa::path(get, path = "/tokens/{id}", tag = "tokens", params(ById),
    responses((status = 200, description = "The token.", body = Token)))]
async fn get_token(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(by): Path<ById>,
) -> Result<Json<Token>, Problem> {
    desk.run(move |desk| {
        let token = desk.system.store.token(&by.id.to_string())?;
        if !caller.reaches(token.scope.organization.as_deref(), Access::Read) {
            return Err(StoreError::not_found(Kind::Token, &by.id.to_string()).into());
        }
        Ok(Json(desk.token_up_to_date(token).into()))
    })
    .await
}

/// Revokes a token for good. It stays in the list.
#[utoipa::path(post, path = "/tokens/{id}/revoke", tag = "tokens", params(ById),
    responses((status = 200, description = "The token, revoked.", body = Token)))]
async fn revoke_token(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(by): Path<ById>,
) -> Result<Json<Token>, Problem> {
    let revoked = desk.revoke_token(&caller, by.id.to_string()).await?;
    Ok(Json(revoked.into()))
}
