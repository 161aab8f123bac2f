//! IAM policies, read as AWS reads them: whether they allow what a function asks for, and what in them is wider than it
//! need be. Emulators check no permissions, or not all, so that a policy must be judged without one.
//!
//! After <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>. What is not
//! understood is never taken for permission: it keeps an Allow from counting, and makes a Deny doubtful.

mod scan;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

pub use self::scan::scan;

/// What somebody asks of AWS, in IAM's words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// `service:Operation`
    pub action: String,
    /// An ARN, or `*` for an action that has no resource.
    pub resource: String,
    /// Condition keys of which the values are known, in lower case.
    pub context: BTreeMap<String, String>,
}

impl Request {
    pub fn new(action: impl Into<String>, resource: impl Into<String>) -> Request {
        Request { action: action.into(), resource: resource.into(), context: BTreeMap::new() }
    }

    pub fn with(mut self, key: &str, value: impl Into<String>) -> Request {
        self.context.insert(key.to_lowercase(), value.into());
        self
    }
}

/// What policies say of a request. Each reason names the statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Allowed,
    Denied(String),
    /// No statement allows it. The reasons are of those that would, if something that is not known holds.
    NotAllowed(Vec<String>),
    /// It is allowed, unless a Deny counts of which that cannot be told.
    Doubtful(Vec<String>),
}

/// One policy document: of an identity, or for [`scan`] of a resource or a role's trust too.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Policy {
    #[serde(rename = "Version")]
    _version: Option<String>,
    #[serde(rename = "Id")]
    _id: Option<String>,
    statement: Many<Statement>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Statement {
    sid: Option<String>,
    effect: Effect,
    action: Option<Many<String>>,
    not_action: Option<Many<String>>,
    resource: Option<Many<String>>,
    not_resource: Option<Many<String>>,
    /// Operator, key, values.
    condition: Option<BTreeMap<String, BTreeMap<String, Many<Value>>>>,
    principal: Option<Value>,
    not_principal: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Effect {
    Allow,
    Deny,
}

/// JSON policies may leave out the brackets of a list of one.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Many<T> {
    List(Vec<T>),
    One(T),
}

impl<T> Many<T> {
    fn as_slice(&self) -> &[T] {
        match self {
            Many::List(list) => list,
            Many::One(one) => std::slice::from_ref(one),
        }
    }
}

/// Whether a statement applies to a request.
enum Applies {
    Yes,
    No,
    /// What would have to be known.
    Unknown(String),
}

impl Policy {
    /// Reads a document, or the text of one, as Terraform's plan holds it.
    ///
    /// # Errors
    /// Everything that AWS would refuse or that is not read here.
    pub fn parse(document: &Value) -> Result<Policy, String> {
        let policy: Result<Policy, _> = match document {
            Value::String(text) => serde_json::from_str(text),
            document => Policy::deserialize(document),
        };
        let policy = policy.map_err(|e| format!("this is no policy ({e}): {document}"))?;
        for (number, statement) in policy.statement.as_slice().iter().enumerate() {
            let one_of = |a: &Option<Many<String>>, b: &Option<Many<String>>| a.is_some() != b.is_some();
            let of_identity = statement.principal.is_none() && statement.not_principal.is_none();
            let resources = one_of(&statement.resource, &statement.not_resource);
            // A role's trust policy has no resource: it lies in the role.
            let none = statement.resource.is_none() && statement.not_resource.is_none() && !of_identity;
            if !one_of(&statement.action, &statement.not_action) || !(resources || none) {
                let name = statement.name(number);
                return Err(format!("{name} needs one of Action and NotAction, and one of Resource and NotResource"));
            }
        }
        Ok(policy)
    }
}

/// What identity policies, taken together, say of a request. Other kinds of policy (of the bucket, of the organisation,
/// a permissions boundary) are not asked, and may deny it still.
pub fn decide(policies: &[Policy], request: &Request) -> Decision {
    let (mut allowed, mut doubts, mut would_allow) = (false, Vec::new(), Vec::new());
    for policy in policies {
        for (number, statement) in policy.statement.as_slice().iter().enumerate() {
            let name = statement.name(number);
            match (statement.effect, statement.applies(request)) {
                (_, Applies::No) => {}
                (Effect::Deny, Applies::Yes) => return Decision::Denied(name),
                (Effect::Deny, Applies::Unknown(what)) => doubts.push(format!("{name}: {what}")),
                (Effect::Allow, Applies::Yes) => allowed = true,
                (Effect::Allow, Applies::Unknown(what)) => would_allow.push(format!("{name}: {what}")),
            }
        }
    }
    match (allowed, doubts.is_empty()) {
        (false, _) => Decision::NotAllowed(would_allow),
        (true, false) => Decision::Doubtful(doubts),
        (true, true) => Decision::Allowed,
    }
}

impl Statement {
    fn name(&self, number: usize) -> String {
        self.sid.clone().filter(|sid| !sid.is_empty()).unwrap_or_else(|| format!("statement {}", number + 1))
    }

    fn applies(&self, request: &Request) -> Applies {
        let action = request.action.to_lowercase();
        let is_action = |pattern: &String| matches(&pattern.to_lowercase(), &action);
        let actions = match (&self.action, &self.not_action) {
            (Some(actions), _) => actions.as_slice().iter().any(is_action),
            (None, Some(others)) => !others.as_slice().iter().any(is_action),
            (None, None) => false,
        };
        if !actions {
            return Applies::No;
        }
        let listed = self.resource.as_ref().or(self.not_resource.as_ref()).map_or(&[][..], Many::as_slice);
        // What a policy variable stands for depends on who asks.
        let (variable, plain): (Vec<_>, Vec<_>) = listed.iter().partition(|pattern| pattern.contains("${"));
        let is_listed = plain.iter().any(|pattern| matches(pattern, &request.resource));
        let mut unknown = None;
        match (is_listed, self.resource.is_some()) {
            (true, true) => {}
            (true, false) => return Applies::No,
            (false, in_list) => match variable.first() {
                Some(pattern) => unknown = Some(format!("the value of the variable in {pattern}")),
                None if in_list => return Applies::No,
                None => {}
            },
        }
        if self.principal.is_some() || self.not_principal.is_some() {
            unknown = Some("it names a principal, so it is no statement of an identity's policy".to_owned());
        }
        for (operator, keys) in self.condition.iter().flatten() {
            for (key, values) in keys {
                match holds(operator, key, values.as_slice(), &request.context) {
                    Some(true) => {}
                    Some(false) => return Applies::No,
                    None => unknown = Some(format!("the condition {operator} on {key}")),
                }
            }
        }
        unknown.map_or(Applies::Yes, Applies::Unknown)
    }
}

/// Whether a condition holds; `None` where the operator is not read here, or the key's value is not known.
fn holds(operator: &str, key: &str, values: &[Value], context: &BTreeMap<String, String>) -> Option<bool> {
    let actual = context.get(&key.to_lowercase())?;
    let texts: Option<Vec<String>> = values.iter().map(scalar).collect();
    let texts = texts?;
    if texts.iter().any(|text| text.contains("${")) {
        return None;
    }
    let equal = || texts.iter().any(|text| text == actual);
    let like = || texts.iter().any(|text| matches(text, actual));
    match operator {
        "StringEquals" => Some(equal()),
        "StringNotEquals" => Some(!equal()),
        "StringLike" | "ArnLike" | "ArnEquals" => Some(like()),
        "StringNotLike" | "ArnNotLike" | "ArnNotEquals" => Some(!like()),
        "Bool" => Some(texts.iter().any(|text| text.eq_ignore_ascii_case(actual))),
        _ => None,
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

/// `*` stands for any characters, `:` and `/` too, and `?` for one.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // The last `*`, and how much of the text it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OBJECT: &str = "arn:aws:s3:::lake/names/dt=2026-11-23/hour=05/names+0.parquet";

    fn policy(statement: Value) -> Policy {
        Policy::parse(&json!({"Version": "2012-10-17", "Statement": statement})).unwrap()
    }

    fn allow(action: Value, resource: Value) -> Value {
        json!({"Sid": "S", "Effect": "Allow", "Action": action, "Resource": resource})
    }

    fn decision(statement: Value, request: Request) -> Decision {
        decide(&[policy(statement)], &request)
    }

    fn nothing_allows_it() -> Decision {
        Decision::NotAllowed(Vec::new())
    }

    #[test]
    fn what_a_statement_names_is_allowed_and_nothing_else_is() {
        let statement = allow(json!(["s3:GetObject", "s3:PutObject"]), json!("arn:aws:s3:::lake/names/*"));
        for action in ["s3:GetObject", "s3:PutObject", "S3:putobject"] {
            assert_eq!(decision(statement.clone(), Request::new(action, OBJECT)), Decision::Allowed, "{action}");
        }
        let refused = [
            ("s3:DeleteObject", OBJECT),
            ("s3:GetObjectVersion", OBJECT),
            ("glue:GetObject", OBJECT),
            ("s3:GetObject", "arn:aws:s3:::lake/names"),
            ("s3:GetObject", "arn:aws:s3:::lake/names_dead_letters/x"),
            ("s3:GetObject", "arn:aws:s3:::lake/Names/x"),
            ("s3:GetObject", "arn:aws:s3:::other/names/x"),
            ("s3:GetObject", "arn:aws-cn:s3:::lake/names/x"),
            ("s3:GetObject", "*"),
        ];
        for (action, resource) in refused {
            let decided = decision(statement.clone(), Request::new(action, resource));
            assert_eq!(decided, nothing_allows_it(), "{action} {resource}");
        }
    }

    #[test]
    fn no_policy_allows_nothing() {
        assert_eq!(decide(&[], &Request::new("s3:GetObject", OBJECT)), nothing_allows_it());
        assert_eq!(decision(json!([]), Request::new("s3:GetObject", OBJECT)), nothing_allows_it());
    }

    #[test]
    fn wildcards_stand_for_any_characters_or_for_one() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "arn:aws:s3:::lake/a/b"),
            ("arn:aws:s3:::lake/*", "arn:aws:s3:::lake/"),
            ("arn:aws:s3:::lake/*/dt=*", "arn:aws:s3:::lake/names/x/dt=1"),
            (
                "arn:aws:secretsmanager:eu-west-1:1:secret:k-??????",
                "arn:aws:secretsmanager:eu-west-1:1:secret:k-AbCdEf",
            ),
            ("a*b*c", "aXbXbc"),
            ("a**", "a"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("a", ""),
            ("a*", "ba"),
            ("*a", "ab"),
            ("a?", "a"),
            ("a?c", "abbc"),
            ("arn:aws:s3:::lake/*", "arn:aws:s3:::lake"),
            ("secret:k-??????", "secret:k-AbCdEfG"),
            ("a*b*c", "aXbX"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_document_may_be_text_and_its_statements_an_object_or_a_list() {
        let one = json!({"Version": "2012-10-17", "Statement": allow(json!("s3:GetObject"), json!([OBJECT]))});
        let list = json!({"Statement": [allow(json!(["s3:PutObject"]), json!(OBJECT)), one["Statement"]]});
        for document in [one.clone(), list, json!(one.to_string())] {
            let policy = Policy::parse(&document).unwrap();
            assert_eq!(decide(&[policy], &Request::new("s3:GetObject", OBJECT)), Decision::Allowed, "{document}");
        }
    }

    #[test]
    fn a_document_that_is_not_understood_whole_is_refused() {
        let mut misspelt = allow(json!("s3:GetObject"), json!("*"));
        misspelt["Conditions"] = json!({});
        let mut both = allow(json!("s3:GetObject"), json!("*"));
        both["NotAction"] = json!("s3:PutObject");
        for statement in [
            misspelt,
            both,
            json!({"Effect": "allow", "Action": "s3:GetObject", "Resource": "*"}),
            json!({"Action": "s3:GetObject", "Resource": "*"}),
            json!({"Effect": "Allow", "Resource": "*"}),
            json!({"Effect": "Allow", "Action": "s3:GetObject"}),
            json!({"Effect": "Allow", "Action": {"a": "b"}, "Resource": "*"}),
        ] {
            let document = json!({"Statement": statement});
            assert!(Policy::parse(&document).is_err(), "{document}");
        }
        for document in [json!(null), json!({}), json!("no JSON"), json!({"Statement": null})] {
            assert!(Policy::parse(&document).is_err(), "{document}");
        }
    }

    #[test]
    fn a_deny_wins_over_every_allow_wherever_it_stands() {
        let allow = policy(allow(json!("s3:*"), json!("*")));
        let deny = policy(json!([{"Sid": "D", "Effect": "Deny", "Action": "s3:Delete*", "Resource": "*"}]));
        for policies in [[allow.clone(), deny.clone()], [deny, allow]] {
            let denied = decide(&policies, &Request::new("s3:DeleteObject", OBJECT));
            assert_eq!(denied, Decision::Denied("D".to_owned()));
            assert_eq!(decide(&policies, &Request::new("s3:GetObject", OBJECT)), Decision::Allowed);
        }
    }

    #[test]
    fn not_action_and_not_resource_mean_everything_else() {
        let not_action = json!({"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"});
        assert_eq!(decision(not_action.clone(), Request::new("s3:GetObject", OBJECT)), Decision::Allowed);
        assert_eq!(decision(not_action, Request::new("iam:PassRole", "*")), nothing_allows_it());
        let not_resource = json!({"Effect": "Deny", "Action": "*", "NotResource": "arn:aws:s3:::lake/*"});
        let statements = json!([allow(json!("*"), json!("*")), not_resource]);
        assert_eq!(decision(statements.clone(), Request::new("s3:GetObject", OBJECT)), Decision::Allowed);
        let elsewhere = decision(statements, Request::new("s3:GetObject", "arn:aws:s3:::other/x"));
        assert_eq!(elsewhere, Decision::Denied("statement 2".to_owned()));
    }

    #[test]
    fn a_condition_counts_when_the_request_says_what_it_asks_about() {
        let mut statement = allow(json!("s3:ListBucket"), json!("arn:aws:s3:::lake"));
        statement["Condition"] = json!({"StringLike": {"s3:Prefix": ["names/*", "_ledger/*"]}});
        let list = Request::new("s3:ListBucket", "arn:aws:s3:::lake");
        let inside = list.clone().with("s3:prefix", "names/dt=2026-11-23/");
        assert_eq!(decision(statement.clone(), inside), Decision::Allowed);
        assert_eq!(decision(statement.clone(), list.clone().with("s3:prefix", "other/")), nothing_allows_it());
        let unknown = Decision::NotAllowed(vec!["S: the condition StringLike on s3:Prefix".to_owned()]);
        assert_eq!(decision(statement, list), unknown);
    }

    #[test]
    fn an_allow_with_a_condition_that_is_not_known_is_not_allowed() {
        let known = Request::new("s3:GetObject", OBJECT).with("aws:sourceip", "10.0.0.1");
        for (operator, key) in
            [("IpAddress", "aws:SourceIp"), ("StringEqualsIfExists", "aws:SourceIp"), ("StringEquals", "aws:SourceVpc")]
        {
            let mut statement = allow(json!("s3:GetObject"), json!("*"));
            statement["Condition"] = json!({operator: {key: "10.0.0.1"}});
            let decided = decision(statement, known.clone());
            assert_eq!(decided, Decision::NotAllowed(vec![format!("S: the condition {operator} on {key}")]));
        }
    }

    #[test]
    fn every_condition_of_a_statement_must_hold() {
        let mut statement = allow(json!("s3:GetObject"), json!("*"));
        statement["Condition"] =
            json!({"Bool": {"aws:SecureTransport": true}, "StringEquals": {"aws:ResourceAccount": ["1", "2"]}});
        let request = |tls: &str, account: &str| {
            let request = Request::new("s3:GetObject", OBJECT);
            request.with("aws:SecureTransport", tls).with("aws:ResourceAccount", account)
        };
        assert_eq!(decision(statement.clone(), request("true", "2")), Decision::Allowed);
        assert_eq!(decision(statement.clone(), request("false", "2")), nothing_allows_it());
        assert_eq!(decision(statement, request("true", "3")), nothing_allows_it());
    }

    #[test]
    fn a_deny_with_a_condition_that_is_not_known_is_told() {
        let deny = json!({"Sid": "D", "Effect": "Deny", "Action": "s3:*", "Resource": "*",
                          "Condition": {"Bool": {"aws:SecureTransport": "false"}}});
        let statements = json!([allow(json!("s3:GetObject"), json!("*")), deny]);
        let request = Request::new("s3:GetObject", OBJECT);
        let doubtful = Decision::Doubtful(vec!["D: the condition Bool on aws:SecureTransport".to_owned()]);
        assert_eq!(decision(statements.clone(), request.clone()), doubtful);
        let over_tls = request.clone().with("aws:SecureTransport", "true");
        assert_eq!(decision(statements.clone(), over_tls), Decision::Allowed);
        let in_clear = request.with("aws:SecureTransport", "false");
        assert_eq!(decision(statements, in_clear), Decision::Denied("D".to_owned()));
    }

    #[test]
    fn a_policy_variable_and_a_principal_allow_nothing() {
        let variable = allow(json!("s3:GetObject"), json!("arn:aws:s3:::lake/${aws:username}/*"));
        let mut principal = allow(json!("s3:GetObject"), json!("*"));
        principal["Principal"] = json!("*");
        for statement in [variable, principal] {
            let decided = decision(statement, Request::new("s3:GetObject", OBJECT));
            assert!(matches!(&decided, Decision::NotAllowed(why) if why.len() == 1), "{decided:?}");
        }
    }
}
