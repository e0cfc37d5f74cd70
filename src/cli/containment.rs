//! Limits and rules as they are typed and shown.

use std::str::FromStr;

use clap::Args;

use super::output::{plain, table};
use crate::config::parse_byte_size;
use crate::policy::{
    BareNewline, Limit, Limits, LimitsChange, Network, Report, Rule, Rules, RulesChange, Sender,
    Setting,
};

/// A value, or by the word "default" or "any" that there is to be none.
#[derive(Clone, Debug)]
pub struct Choice<T>(Option<T>);

fn limit(text: &str) -> Result<Choice<Setting>, String> {
    match text {
        "default" => Ok(Choice(None)),
        _ => text
            .parse()
            .map(|setting| Choice(Some(setting)))
            .map_err(|error| format!("{error}, or \"default\" for the instance's")),
    }
}

fn size(text: &str) -> Result<Choice<Setting>, String> {
    match parse_byte_size(text).filter(|bytes| *bytes > 0) {
        Some(bytes) => limit(&bytes.to_string()),
        None => limit(text).map_err(|_| {
            format!("{text:?} is not a size; write 10485760, 10MiB, \"unlimited\" or \"default\"")
        }),
    }
}

/// Declares the options of a command that changes limits.
macro_rules! options {
    ($(#[$of:meta])* $name:ident { $($(#[$meaning:meta])* $key:ident = $limit:ident by $parser:ident,)* }) => {
        $(#[$of])*
        #[derive(Debug, Default, Args)]
        pub struct $name {
            $($(#[$meaning])*
            #[arg(long, value_name = "NUMBER", value_parser = $parser)]
            $key: Option<Choice<Setting>>,)*
        }

        impl $name {
            /// What is to be changed.
            pub fn change(&self) -> LimitsChange {
                let named = [$((Limit::$limit, &self.$key),)*];
                let named = named.into_iter();
                LimitsChange(named.filter_map(|(limit, choice)| Some((limit, choice.as_ref()?.0))).collect())
            }
        }
    };
}

options! {
    /// The limits of a credential; each a number, "unlimited", or "default" for the instance's.
    CredentialLimits {
        /// Messages in a second, and at once after a pause
        messages_per_second = MessagesPerSecond by limit,
        /// Messages in the last 60 minutes
        messages_per_hour = MessagesPerHour by limit,
        /// Messages in the last 24 hours
        messages_per_day = MessagesPerDay by limit,
        /// Recipients of one message
        recipients_per_message = RecipientsPerMessage by limit,
        /// Recipients in the last 24 hours
        recipients_per_day = RecipientsPerDay by limit,
        /// Bytes of one message (10485760 or 10MiB)
        message_size = MessageSize by size,
        /// Sessions at a time
        sessions = Sessions by limit,
    }
}

options! {
    /// The limits of an organization; each a number, "unlimited", or "default" for the instance's.
    OrganizationLimits {
        /// Messages in a second, and at once after a pause
        messages_per_second = MessagesPerSecond by limit,
        /// Messages in the last 60 minutes
        messages_per_hour = MessagesPerHour by limit,
        /// Messages in the last 24 hours
        messages_per_day = MessagesPerDay by limit,
        /// Messages in the calendar month, in UTC
        messages_per_month = MessagesPerMonth by limit,
        /// Recipients of one message
        recipients_per_message = RecipientsPerMessage by limit,
        /// Recipients in the last 24 hours
        recipients_per_day = RecipientsPerDay by limit,
        /// Bytes of one message (10485760 or 10MiB)
        message_size = MessageSize by size,
        /// Sessions at a time
        sessions = Sessions by limit,
    }
}

/// The rules of a credential.
#[derive(Debug, Default, Args)]
pub struct RuleOptions {
    /// Send only as these: addresses, domains, or <> for bounces, with commas between; or "any"
    #[arg(long, value_name = "LIST", value_parser = list::<Sender>)]
    senders: Option<Choice<Vec<Sender>>>,
    /// Whether the From header must be of these senders, too
    #[arg(long, value_name = "YES|NO", value_parser = ["yes", "no"])]
    header_from: Option<String>,
    /// Log in only from these networks, such as 10.0.0.0/8, with commas between; or "any"
    #[arg(long, value_name = "LIST", value_parser = list::<Network>)]
    networks: Option<Choice<Vec<Network>>>,
    /// Odd line ends: "reject", "normalize", or "default" for the instance's way
    #[arg(long, value_name = "WAY", value_parser = bare_newline)]
    bare_newline: Option<Choice<BareNewline>>,
    /// Only log and count: senders, header_from, networks, expiry, suspended, limits; or "none"
    #[arg(long, value_name = "LIST", value_parser = report)]
    report: Option<Report>,
}

impl RuleOptions {
    /// What is to be changed.
    pub fn change(&self) -> RulesChange {
        RulesChange {
            senders: self.senders.clone().map(|Choice(senders)| senders),
            header_from: self.header_from.as_ref().map(|word| word == "yes"),
            networks: self.networks.clone().map(|Choice(networks)| networks),
            bare_newline: self.bare_newline.clone().map(|Choice(way)| way),
            report: self.report,
        }
    }
}

fn list<T: FromStr<Err = String>>(text: &str) -> Result<Choice<Vec<T>>, String> {
    if text == "any" {
        return Ok(Choice(None));
    }
    let items = text.split(',').map(|item| item.trim().parse());
    items
        .collect::<Result<_, _>>()
        .map(|items| Choice(Some(items)))
}

fn bare_newline(text: &str) -> Result<Choice<BareNewline>, String> {
    match text {
        "default" => Ok(Choice(None)),
        _ => text.parse().map(|way| Choice(Some(way))),
    }
}

fn report(text: &str) -> Result<Report, String> {
    if text == "none" {
        return Ok(Report::default());
    }
    let rules = text.split(',').map(|rule| rule.trim().parse::<Rule>());
    rules.collect()
}

/// The limits as a table; what is not set is the instance's default.
pub fn show_limits(limits: &Limits, credentials: bool) -> String {
    let rows = Limit::of(credentials).map(|limit| {
        let setting = limits.get(limit);
        let value = setting.map_or_else(|| "default".to_owned(), |setting| setting.to_string());
        vec![limit.words().to_owned(), value]
    });
    table(&["Limit", "At most"], rows)
}

/// The rules as a table.
pub fn show_rules(rules: &Rules) -> String {
    let rows = rule_lines(rules).into_iter();
    table(
        &["Rule", "Value"],
        rows.map(|(rule, value)| vec![rule.to_owned(), value]),
    )
}

/// Each rule with its value in words.
pub fn rule_lines(rules: &Rules) -> Vec<(&'static str, String)> {
    let any = || "any".to_owned();
    let way = rules.bare_newline.map_or("default", BareNewline::as_str);
    let report: Vec<_> = rules.report.iter().map(Rule::as_str).collect();
    vec![
        ("Senders", rules.senders.as_deref().map_or_else(any, joined)),
        (
            "From header",
            if rules.header_from {
                "as senders"
            } else {
                "any"
            }
            .to_owned(),
        ),
        (
            "Networks",
            rules.networks.as_deref().map_or_else(any, joined),
        ),
        ("Bare newline", way.to_owned()),
        (
            "Only reported",
            if report.is_empty() {
                "none".to_owned()
            } else {
                report.join(", ")
            },
        ),
    ]
}

fn joined<T: ToString>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(|item| plain(&item.to_string())).collect();
    items.join(", ")
}

/// The limits that are set, in one line.
pub fn limits_line(limits: &Limits) -> String {
    let set = limits.iter();
    let set = set.map(|(limit, setting)| format!("{} {setting}", limit.as_str()));
    set.collect::<Vec<_>>().join(", ")
}
