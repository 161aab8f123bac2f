//! What in a policy is wider than it need be.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Effect, Many, Policy};

/// Something in a policy that is wider than it need be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub statement: String,
    pub problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// `*`, `s3:*`, `s3:Get*`, `s3:GetObjec?`
    WildcardAction(String),
    /// The action is allowed on every resource of its service.
    AnyResource(String),
    /// And no condition narrows it. Also of what a service or everybody is allowed by a resource's policy.
    NoCondition(String),
    /// Everything else is meant, also what AWS will add.
    NotAction,
    NotResource,
    NotPrincipal,
}

/// What is too wide in a policy's Allows; a Deny can only take away. `exceptions` are the actions for which AWS knows no
/// narrower resource, written out: they may have `*` as their resource, and no condition.
pub fn scan(policy: &Policy, exceptions: &[&str]) -> Vec<Finding> {
    let mut findings = BTreeSet::new();
    for (number, statement) in policy.statement.as_slice().iter().enumerate() {
        if statement.effect == Effect::Deny {
            continue;
        }
        let mut found = |problem| findings.insert(Finding { statement: statement.name(number), problem });
        let listed = |list: &Option<Many<String>>| list.as_ref().map_or(Vec::new(), |l| l.as_slice().to_vec());
        let any_resource = listed(&statement.resource).iter().any(|resource| is_any(resource));
        let unbound = any_resource || statement.principal.as_ref().is_some_and(is_anyone);
        let excepted = |action: &String| exceptions.iter().any(|e| e.eq_ignore_ascii_case(action));
        for action in listed(&statement.action) {
            if action.contains(['*', '?']) {
                found(Problem::WildcardAction(action.clone()));
            } else if excepted(&action) {
                continue;
            }
            if any_resource {
                found(Problem::AnyResource(action.clone()));
            }
            if unbound && statement.condition.as_ref().is_none_or(BTreeMap::is_empty) {
                found(Problem::NoCondition(action));
            }
        }
        for (present, problem) in [
            (statement.not_action.is_some(), Problem::NotAction),
            (statement.not_resource.is_some(), Problem::NotResource),
            (statement.not_principal.is_some(), Problem::NotPrincipal),
        ] {
            if present {
                found(problem);
            }
        }
    }
    findings.into_iter().collect()
}

/// `*`, `arn:aws:s3:::*`, `arn:aws:glue:eu-west-1:1:*`: nothing in it says which.
fn is_any(resource: &str) -> bool {
    resource.splitn(6, ':').last().is_some_and(|last| last.chars().all(|c| matches!(c, '*' | '?' | ':' | '/')))
}

/// Everybody, or a service: it acts for whoever asks it to.
fn is_anyone(principal: &Value) -> bool {
    let everybody = |value: &Value| match value {
        Value::String(text) => text == "*",
        Value::Array(list) => list.iter().any(|one| one == "*"),
        _ => false,
    };
    everybody(principal) || principal["Service"] != Value::Null || everybody(&principal["AWS"])
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
        json!({"Effect": "Allow", "Action": action, "Resource": resource})
    }

    fn problems(statement: Value, exceptions: &[&str]) -> Vec<Problem> {
        scan(&policy(statement), exceptions).into_iter().map(|finding| finding.problem).collect()
    }

    #[test]
    fn narrow_statements_have_no_findings() {
        let statements = json!([
            allow(json!(["s3:GetObject", "s3:PutObject"]), json!(["arn:aws:s3:::lake/names/*"])),
            allow(json!("glue:CreatePartition"), json!("arn:aws:glue:eu-west-1:1:table/freshet/names")),
            {"Effect": "Deny", "Action": "s3:*", "Resource": "*"},
        ]);
        assert_eq!(problems(statements, &[]), []);
    }

    #[test]
    fn every_wildcard_in_an_action_is_found() {
        for action in ["*", "s3:*", "s3:Get*", "s3:GetObjec?", "*:GetObject"] {
            let statement = allow(json!(["s3:PutObject", action]), json!(OBJECT));
            assert_eq!(problems(statement, &[action]), [Problem::WildcardAction(action.to_owned())]);
        }
    }

    #[test]
    fn every_resource_that_is_only_a_wildcard_is_found_but_for_the_exceptions() {
        for resource in ["*", "**", "arn:aws:s3:::*", "arn:aws:glue:eu-west-1:1:*", "arn:aws:s3:::*/*"] {
            let statement = allow(json!(["ec2:DescribeSubnets", "s3:GetObject"]), json!([OBJECT, resource]));
            let expected = ["s3:GetObject"]
                .map(|action| [Problem::AnyResource(action.to_owned()), Problem::NoCondition(action.to_owned())]);
            assert_eq!(problems(statement, &["EC2:DescribeSubnets"]), expected.concat(), "{resource}");
        }
        let excepted = allow(json!("ec2:DescribeSubnets"), json!("*"));
        assert_eq!(problems(excepted, &["ec2:DescribeSubnets"]), []);
    }

    #[test]
    fn a_condition_on_any_resource_is_worth_the_milder_finding() {
        let mut statement = allow(json!("s3:GetObject"), json!("*"));
        statement["Condition"] = json!({"StringEquals": {"aws:ResourceAccount": "1"}});
        assert_eq!(problems(statement, &[]), [Problem::AnyResource("s3:GetObject".to_owned())]);
    }

    #[test]
    fn what_means_everything_else_is_found() {
        let statement = json!({"Effect": "Allow", "NotAction": "iam:*", "NotResource": "arn:aws:s3:::secret/*"});
        assert_eq!(problems(statement, &[]), [Problem::NotAction, Problem::NotResource]);
        let statement =
            json!({"Effect": "Allow", "Action": "s3:GetObject", "Resource": OBJECT, "NotPrincipal": {"AWS": "1"}});
        assert_eq!(problems(statement, &[]), [Problem::NotPrincipal]);
    }

    #[test]
    fn a_service_or_everybody_without_a_condition_is_found() {
        for principal in
            [json!("*"), json!({"AWS": "*"}), json!({"AWS": ["1", "*"]}), json!({"Service": "s3.amazonaws.com"})]
        {
            let mut statement = json!({"Effect": "Allow", "Action": "sns:Publish", "Resource": "arn:aws:sns:eu-west-1:1:t",
                                       "Principal": principal});
            assert_eq!(problems(statement.clone(), &[]), [Problem::NoCondition("sns:Publish".to_owned())]);
            statement["Condition"] = json!({"StringEquals": {"aws:SourceAccount": "1"}});
            assert_eq!(problems(statement, &[]), []);
        }
        let trust =
            json!({"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "lambda.amazonaws.com"}});
        assert_eq!(problems(trust.clone(), &[]), [Problem::NoCondition("sts:AssumeRole".to_owned())]);
        assert_eq!(problems(trust, &["sts:AssumeRole"]), []);
    }

    #[test]
    fn a_finding_names_its_statement() {
        let statements = json!([allow(json!("s3:GetObject"), json!(OBJECT)), {"Effect": "Allow", "Action": "s3:*", "Resource": OBJECT}]);
        assert_eq!(scan(&policy(statements), &[])[0].statement, "statement 2");
    }
}
