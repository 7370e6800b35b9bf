//! The settings in force, as screens show them: everything that the configuration says, but no secret and nothing that
//! may hold one. A setting is shown because it is named here.

use conveyor_services::schedules::ScheduleSettings;
use serde_json::{Value, json};

use super::config::Config;

pub fn of(config: &Config, schedules: &[(&String, &ScheduleSettings)]) -> Value {
    let shares = config.shares.iter().map(|(name, share)| {
        json!({"name": name, "path": share.path.display().to_string(), "served": config.served().contains(name),
            "mounted": share.mounted})
    });
    let watches = config.watch.iter().map(|watch| {
        json!({"share": watch.share, "workflow": watch.workflow, "suffixes": watch.suffixes,
            "settle": watch.settle.to_string(), "incomplete": watch.incomplete.to_string(), "scan": watch.scan.to_string(), "in_flight": watch.in_flight,
            "retry": watch.retry.to_string(), "duplicates": watch.duplicates, "quarantine": watch.quarantine})
    });
    let functions = config.functions.keys().map(String::as_str);
    let credentials = config.credentials.iter().map(|c| json!({"user": c.access_key_id, "role": c.role}));
    let (limits, logs) = (&config.limits, &config.logs);
    json!({
        "data_dir": config.data_dir.display().to_string(),
        "listen": config.listen.to_string(),
        "tls": config.tls.as_ref().map(|tls| tls.certificate.display().to_string()),
        "plain": config.plain,
        "proxies": config.proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "account": config.account,
        "region": config.region,
        "shares": shares.collect::<Vec<_>>(),
        "watch": watches.collect::<Vec<_>>(),
        "retention": {"archive": config.retention.archive.to_string(),
            "executions": config.retention.executions.to_string()},
        "notify": {"targets": config.notify.targets()},
        "lanes": config.lanes,
        "acceleration": config.acceleration,
        "sandbox": config.sandbox,
        "limits": {"payload_kib": limits.payload_kib, "history_events": limits.history_events,
            "definition_kib": limits.definition_kib, "executions": limits.executions,
            "express_executions": limits.express_executions, "tags": limits.tags, "pixels": limits.pixels,
            "frames_per_second": limits.frames_per_second, "streams": limits.streams},
        "logs": {"keep": logs.keep.to_string(), "file_mib": logs.file_mib, "total_mib": logs.total_mib},
        "aws": {"endpoint": config.aws.endpoint.as_deref().map(without_user)},
        "lambda": {"endpoint": config.lambda.endpoint.as_deref().map(without_user)},
        "queues": config.queues.keys().collect::<Vec<_>>(),
        "rules": config.rules.keys().collect::<Vec<_>>(),
        "connections": config.connections.keys().collect::<Vec<_>>(),
        "functions": functions.collect::<Vec<_>>(),
        "tables": config.tables.keys().collect::<Vec<_>>(),
        "credentials": credentials.collect::<Vec<_>>(),
        "schedules": schedules.iter().map(|(name, schedule)| shown(name, schedule)).collect::<Vec<_>>(),
    })
}

/// An address without a user and a password.
fn without_user(address: &str) -> String {
    match (address.split_once("://"), address.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        _ => address.to_owned(),
    }
}

fn shown(name: &str, schedule: &ScheduleSettings) -> Value {
    json!({"name": name, "rule": schedule.rule.to_string(), "workflow": schedule.workflow,
        "timezone": schedule.timezone, "enabled": schedule.enabled, "missed": schedule.missed})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_shown_as_the_file_spells_it() {
        let text = r#"
            [schedules.late]
            rule = "rate(15 minutes)"
            workflow = "main"
            [schedules.never_late]
            rule = "cron(0 3 * * ? *)"
            workflow = "main"
            missed = "skip"
        "#;
        let config: Config = toml::from_str(text).unwrap();
        let shown = of(&config, &config.schedules.iter().collect::<Vec<_>>());
        let shown = shown["schedules"].as_array().unwrap().iter().map(|s| (&s["rule"], &s["missed"]));
        let asked = [(&json!("rate(15 minutes)"), &json!("run-once")), (&json!("cron(0 3 * * ? *)"), &json!("skip"))];
        assert_eq!(shown.collect::<Vec<_>>(), asked);
    }
}
