//! Limits and rules as forms: what is set, what holds, and how far it is used up.

use crate::auth::quota::Use;
use crate::policy::{
    BareNewline, Limit, Limits, LimitsChange, Network, Rule, Rules, RulesChange, Sender, Setting,
};

use super::form::{Field, Form};

/// One limit in a form.
pub(super) struct LimitField {
    /// The field's name.
    pub(super) id: &'static str,
    /// What people call the limit.
    pub(super) label: &'static str,
    /// What holds, and how much there is now.
    pub(super) hint: String,
    pub(super) field: Field,
}

/// All limits of a credential, or else of an organization.
pub(super) struct LimitsForm {
    pub(super) fields: Vec<LimitField>,
    /// Whether any is reached.
    pub(super) is_over: bool,
}

impl LimitsForm {
    /// With what is set. `uses` are those that hold, `defaults` the instance's.
    pub(super) fn of(
        credentials: bool,
        limits: &Limits,
        defaults: &Limits,
        uses: &[Use],
    ) -> LimitsForm {
        let fields = Limit::of(credentials).map(|limit| {
            let set = limits.get(limit).map(|setting| setting.to_string());
            LimitField {
                id: id(limit),
                label: limit.words(),
                hint: hint(limit, defaults, uses),
                field: Field::of(set.unwrap_or_default()),
            }
        });
        LimitsForm {
            fields: fields.collect(),
            is_over: is_over(uses),
        }
    }

    /// How many limits are set.
    pub(super) fn set(&self) -> usize {
        let set = self.fields.iter().filter(|own| !own.field.value.is_empty());
        set.count()
    }

    pub(super) fn has_error(&self) -> bool {
        self.fields.iter().any(|own| own.field.error.is_some())
    }

    /// With what was sent, where that was not accepted.
    pub(super) fn refilled(mut self, sent: Vec<Field>) -> LimitsForm {
        for (shown, sent) in self.fields.iter_mut().zip(sent) {
            shown.field = sent;
        }
        self
    }
}

/// Whether any limit is reached for longer than a moment.
pub(super) fn is_over(uses: &[Use]) -> bool {
    uses.iter().any(Use::is_over)
}

fn hint(limit: Limit, defaults: &Limits, uses: &[Use]) -> String {
    let default = match defaults.get(limit).and_then(Setting::number) {
        Some(number) => format!("Empty: the instance's default, {number}."),
        None => "Empty: the instance's default, no limit.".to_owned(),
    };
    let found = uses.iter().find(|used| used.limit == limit);
    match found.and_then(|found| Some((found.is_over(), found.used?, found.ceiling))) {
        Some((true, used, ceiling)) => format!("{default} Reached: {used} of {ceiling}."),
        Some((false, used, ceiling)) => format!("{default} Now {used} of {ceiling}."),
        None => default,
    }
}

/// The names of the fields, which must not be those of others on the page.
fn id(limit: Limit) -> &'static str {
    match limit {
        Limit::MessageSize => "limit_message_size",
        Limit::MessagesPerDay => "limit_messages_per_day",
        Limit::MessagesPerHour => "limit_messages_per_hour",
        Limit::MessagesPerMonth => "limit_messages_per_month",
        Limit::MessagesPerSecond => "limit_messages_per_second",
        Limit::RecipientsPerDay => "limit_recipients_per_day",
        Limit::RecipientsPerMessage => "limit_recipients_per_message",
        Limit::Sessions => "limit_sessions",
    }
}

/// The limits that a form asks for.
///
/// # Errors
/// Its fields, where some are wrong.
pub(super) fn read_limits(form: &Form, credentials: bool) -> Result<LimitsChange, Vec<Field>> {
    let mut fields = Vec::new();
    let mut change = Vec::new();
    for limit in Limit::of(credentials) {
        let mut field = form.field(id(limit));
        if let Some(setting) = field.read(|text| match text.trim() {
            "" => Ok(None),
            text => text.parse().map(Some),
        }) {
            change.push((limit, setting));
        }
        fields.push(field);
    }
    if fields.iter().any(|field| field.error.is_some()) {
        return Err(fields);
    }
    Ok(LimitsChange(change))
}

/// The rules of a credential in a form.
pub(super) struct RulesForm {
    pub(super) senders: Field,
    pub(super) header_from: bool,
    pub(super) networks: Field,
    pub(super) bare_newline: String,
    /// What may be only reported: the field's name, what it is, and whether it is.
    pub(super) report: Vec<(&'static str, &'static str, bool)>,
}

impl RulesForm {
    /// With what is set.
    pub(super) fn of(rules: &Rules) -> RulesForm {
        let way = rules.bare_newline.map_or("", BareNewline::as_str);
        RulesForm {
            senders: Field::of(joined(rules.senders.as_deref())),
            header_from: rules.header_from,
            networks: Field::of(joined(rules.networks.as_deref())),
            bare_newline: way.to_owned(),
            report: boxes(|rule| rules.reports(rule)),
        }
    }

    /// Whether no rule is set.
    pub(super) fn is_empty(&self) -> bool {
        let texts = [
            &self.senders.value,
            &self.networks.value,
            &self.bare_newline,
        ];
        texts.iter().all(|text| text.is_empty())
            && !self.header_from
            && self.report.iter().all(|(.., ticked)| !ticked)
    }

    pub(super) fn has_error(&self) -> bool {
        self.senders.error.is_some() || self.networks.error.is_some()
    }

    /// As it was sent.
    fn sent(form: &Form) -> RulesForm {
        RulesForm {
            senders: form.field("senders"),
            header_from: form.ticked("header_from"),
            networks: form.field("networks"),
            bare_newline: form.text("bare_newline").to_owned(),
            report: boxes(|rule| form.ticked(report_id(rule).0)),
        }
    }
}

/// The rules that a form asks for.
///
/// # Errors
/// The form, where some of it is wrong.
pub(super) fn read_rules(form: &Form) -> Result<RulesChange, Box<RulesForm>> {
    let mut sent = RulesForm::sent(form);
    let senders = sent.senders.read(list::<Sender>);
    let networks = sent.networks.read(list::<Network>);
    let (Some(senders), Some(networks)) = (senders, networks) else {
        return Err(Box::new(sent));
    };
    let change = RulesChange {
        senders: Some(senders),
        header_from: Some(sent.header_from),
        networks: Some(networks),
        bare_newline: Some(sent.bare_newline.parse().ok()),
        report: Some(
            Rule::ALL
                .into_iter()
                .filter(|rule| form.ticked(report_id(*rule).0))
                .collect(),
        ),
    };
    if let Err(error) = Rules::default().with(&change) {
        sent.senders.error = Some(error.to_string());
        return Err(Box::new(sent));
    }
    Ok(change)
}

fn boxes(is_ticked: impl Fn(Rule) -> bool) -> Vec<(&'static str, &'static str, bool)> {
    let of = |rule| {
        let (id, words) = report_id(rule);
        (id, words, is_ticked(rule))
    };
    Rule::ALL.into_iter().map(of).collect()
}

fn report_id(rule: Rule) -> (&'static str, &'static str) {
    match rule {
        Rule::Expiry => ("report_expiry", "Expiry"),
        Rule::HeaderFrom => ("report_header_from", "The From header"),
        Rule::Limits => ("report_limits", "Limits of this credential"),
        Rule::Networks => ("report_networks", "Networks"),
        Rule::Senders => ("report_senders", "Senders"),
        Rule::Suspended => ("report_suspended", "Suspension of the organization"),
    }
}

fn joined<T: ToString>(items: Option<&[T]>) -> String {
    let items = items.unwrap_or_default().iter();
    items.map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// Items with commas or white space between them; none means any.
fn list<T: std::str::FromStr<Err = String>>(text: &str) -> Result<Option<Vec<T>>, String> {
    let items = text.split(|c: char| c == ',' || c.is_whitespace());
    let items = items.filter(|item| !item.is_empty()).map(str::parse);
    let items = items.collect::<Result<Vec<T>, String>>()?;
    Ok(Some(items).filter(|items| !items.is_empty()))
}
