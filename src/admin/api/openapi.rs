//! The OpenAPI document: what the routes say of themselves, and what is true of all of them.

use utoipa::openapi::content::{Content, ContentBuilder};
use utoipa::openapi::path::{Operation, Parameter, ParameterIn, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Required, ResponseBuilder,
    Schema, Type, schema::SchemaType,
};
use utoipa::{PartialSchema as _, ToSchema as _};

use crate::admin::problem::{FieldError, ProblemDocument};

const TOKEN: &str = "token";

/// The document before any route is in it.
pub(super) fn outline() -> OpenApi {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A token of `gatepost token create`. Over the unix socket none is needed.",
        ))
        .build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Gatepost")
                .description(Some(
                    "Organizations, their SMTP credentials, and what these are used for.",
                ))
                .version(env!("CARGO_PKG_VERSION")),
        )
        .components(Some(
            ComponentsBuilder::new()
                .security_scheme(TOKEN, SecurityScheme::Http(scheme))
                .schema(ProblemDocument::name(), ProblemDocument::schema())
                .schema(FieldError::name(), FieldError::schema())
                .build(),
        ))
        .security(Some([SecurityRequirement::new(
            TOKEN,
            Vec::<String>::new(),
        )]))
        .build()
}

/// Adds the problems that follow from what a route takes.
pub(super) fn complete(document: &mut OpenApi) {
    let schemas = document.components.iter().flat_map(|all| &all.schemas);
    let optional = schemas.filter_map(|(name, schema)| match schema {
        RefOr::T(Schema::Object(object)) if object.required.is_empty() => Some(reference(name)),
        _ => None,
    });
    let optional: Vec<_> = optional.collect();
    for item in document.paths.paths.values_mut() {
        let PathItem {
            get,
            post,
            patch,
            delete,
            ..
        } = item;
        for operation in [get].into_iter().flatten() {
            complete_operation(operation, false, &optional);
        }
        for operation in [post, patch, delete].into_iter().flatten() {
            complete_operation(operation, true, &optional);
        }
    }
}

fn reference(name: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}

/// A header or a query can be left out, but not be null.
fn without_null(parameter: &mut RefOr<Parameter>) {
    if let RefOr::T(Parameter {
        schema: Some(RefOr::T(Schema::Object(object))),
        ..
    }) = parameter
        && let SchemaType::Array(types) = &mut object.schema_type
    {
        types.retain(|kind| *kind != Type::Null);
        if let [only] = types.as_slice() {
            object.schema_type = SchemaType::Type(only.clone());
        }
    }
}

fn complete_operation(operation: &mut Operation, changes: bool, optional: &[RefOr<Schema>]) {
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        // An empty object says as much as no body.
        let may_be_empty = |content: &RefOr<Content>| match content {
            RefOr::T(content) => content
                .schema
                .as_ref()
                .is_some_and(|schema| optional.contains(schema)),
            RefOr::Ref(_) => false,
        };
        let required = !body.content.values().all(may_be_empty);
        body.required = Some(if required {
            Required::True
        } else {
            Required::False
        });
    }
    operation
        .parameters
        .iter_mut()
        .flatten()
        .for_each(without_null);
    let parameters = operation.parameters.iter().flatten();
    let takes = |place: fn(&ParameterIn) -> bool, name: Option<&str>| {
        parameters.clone().any(|parameter| match parameter {
            RefOr::T(parameter) => {
                let named = name.is_none_or(|name| parameter.name.eq_ignore_ascii_case(name));
                place(&parameter.parameter_in) && named
            }
            RefOr::Ref(_) => false,
        })
    };
    let in_path = takes(|place| matches!(place, ParameterIn::Path), None);
    let conditional = takes(
        |place| matches!(place, ParameterIn::Header),
        Some("If-Match"),
    );
    let body = operation.request_body.is_some();
    let problems = [
        ("400", true, "The request cannot be read."),
        ("401", true, "There is no token, or not a valid one."),
        (
            "403",
            true,
            "The token does not allow this, or the request came for or from another site.",
        ),
        ("404", in_path || body, "There is nothing of that name."),
        ("408", body, "The body came too slowly."),
        (
            "409",
            changes,
            "It contradicts what is there, or was done already.",
        ),
        (
            "412",
            conditional,
            "It was changed since the ETag was read; read it again and decide anew.",
        ),
        ("413", body, "The body is too large."),
        ("415", body, "The body is not said to be JSON."),
        (
            "422",
            body,
            "Fields are not what they must be; `errors` names each.",
        ),
        ("429", true, "Too many wrong tokens came from this address."),
        ("500", true, "A fault of Gatepost's."),
        (
            "503",
            true,
            "The store is busy or cannot be used; try again.",
        ),
        (
            "507",
            changes,
            "The disk is full. With the code `effective-not-durable` the revocation counts, but the store could not be written, whatever the reason.",
        ),
    ];
    for (status, _, description) in problems.into_iter().filter(|(_, applies, _)| *applies) {
        let content = ContentBuilder::new()
            .schema(Some(reference("Problem")))
            .build();
        let response = ResponseBuilder::new()
            .description(description)
            .content("application/problem+json", content)
            .build();
        let responses = &mut operation.responses.responses;
        responses
            .entry(status.to_owned())
            .or_insert(RefOr::T(response));
    }
}
