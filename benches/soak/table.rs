//! RELIABILITY.md: what the campaigns are, sums over all runs, the runs, and what they found. Read and written here;
//! the text before the sums and the list of what was found belong to people, and stay as they are.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use crate::CAMPAIGNS;

const SUMS: &str = "## Sums over all runs";
const RUNS: &str = "## Runs";
const FOUND: &str = "## What was found";
const RUNS_HEAD: &str = "| date | commit | minutes | campaign | seeds | tried | found | what came of it |";
const RUNS_RULE: &str = "|---|---|---:|---|---|---:|---:|---|";
const HEAD: &str = include_str!("head.md");
/// Of a line in the list of what was found, in characters.
const FAULT_MAX: usize = 700;
/// Lines of one day and commit.
const FOUND_MAX: usize = 100;

/// What one campaign did in one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    date: String,
    commit: String,
    minutes: f64,
    campaign: String,
    first: u64,
    last: u64,
    tried: u64,
    found: u64,
    /// How often what came of a seed.
    ends: BTreeMap<String, u64>,
}

impl Row {
    pub fn new(date: &str, commit: &str, campaign: &str) -> Row {
        Row {
            date: date.to_owned(),
            commit: commit.to_owned(),
            minutes: 0.0,
            campaign: campaign.to_owned(),
            first: u64::MAX,
            last: 0,
            tried: 0,
            found: 0,
            ends: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, seed: u64, tried: u64, what: &str, is_found: bool) {
        self.first = self.first.min(seed);
        self.last = self.last.max(seed);
        self.tried += tried;
        self.found += u64::from(is_found);
        let what = what.replace(['|', ';', '\n'], " ");
        *self.ends.entry(what).or_default() += 1;
    }

    fn parse(line: &str) -> Option<Row> {
        let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
        let [date, commit, minutes, campaign, seeds, tried, found, ends] = cells[..] else { return None };
        let (first, last) = seeds.split_once('-')?;
        let number = |text: &str| text.replace(',', "").parse::<u64>().ok();
        let mut counted = BTreeMap::new();
        for end in ends.split(';').map(str::trim).filter(|end| !end.is_empty()) {
            let (what, count) = end.rsplit_once(' ')?;
            counted.insert(what.to_owned(), number(count)?);
        }
        Some(Row {
            date: date.to_owned(),
            commit: commit.to_owned(),
            minutes: minutes.parse().ok()?,
            campaign: campaign.to_owned(),
            first: number(first)?,
            last: number(last)?,
            tried: number(tried)?,
            found: number(found)?,
            ends: counted,
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { date, commit, minutes, campaign, first, last, tried, found, ends } = self;
        let ends: Vec<String> = ends.iter().map(|(what, count)| format!("{what} {count}")).collect();
        let (tried, ends) = (grouped(*tried), ends.join("; "));
        write!(f, "| {date} | {commit} | {minutes:.1} | {campaign} | {first}-{last} | {tried} | {found} | {ends} |")
    }
}

/// 12,345
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    head: String,
    rows: Vec<Row>,
    /// Lines, as they stand: people add to them.
    found: Vec<String>,
}

impl Table {
    /// Fails where the file is there and is not understood, so that no figures are written over.
    pub fn read(path: &Path) -> Result<Table, String> {
        match fs::read_to_string(path) {
            Ok(text) => Table::parse(&text),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                Ok(Table { head: HEAD.trim().to_owned(), rows: Vec::new(), found: Vec::new() })
            }
            Err(e) => Err(e.to_string()),
        }
    }

    fn parse(text: &str) -> Result<Table, String> {
        let part = |name: &str| text.split_once(&format!("\n{name}\n")).ok_or_else(|| format!("has no '{name}'"));
        let (head, _) = part(SUMS)?;
        let (_, runs) = part(RUNS)?;
        let (_, found) = part(FOUND)?;
        let runs = runs.split(FOUND).next().unwrap_or_default();
        let lines = runs.lines().filter(|line| line.starts_with('|') && *line != RUNS_HEAD && *line != RUNS_RULE);
        let rows = lines.map(|line| Row::parse(line).ok_or_else(|| format!("no row of a run: {line}")));
        let found = Some(found.trim()).filter(|found| *found != NOTHING);
        Ok(Table {
            head: head.trim().to_owned(),
            rows: rows.collect::<Result<_, _>>()?,
            found: found.map(|found| found.lines().map(str::to_owned).collect()).unwrap_or_default(),
        })
    }

    /// A seed that no run of that campaign had.
    pub fn next_seed(&self, campaign: &str) -> u64 {
        let of = self.rows.iter().filter(|row| row.campaign == campaign);
        of.map(|row| row.last + 1).max().unwrap_or(1_000)
    }

    /// With the rows of a run that took so long.
    pub fn with<'a>(&self, rows: impl Iterator<Item = &'a Row>, minutes: f64) -> Table {
        let mut table = self.clone();
        table.rows.extend(rows.map(|row| Row { minutes: (minutes * 10.0).round() / 10.0, ..row.clone() }));
        table
    }

    pub fn newest(&self, count: usize) -> &[Row] {
        &self.rows[self.rows.len() - count..]
    }

    /// Of very many, those that come first are told.
    pub fn found(&mut self, date: &str, commit: &str, seed: &str, fault: &str) {
        let start = format!("- {date}, {commit}, ");
        if self.found.iter().filter(|line| line.starts_with(&start)).count() >= FOUND_MAX {
            return;
        }
        let fault: String = fault.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(FAULT_MAX).collect();
        self.found.push(format!("{start}`make soak SEED={seed}`: {fault}"));
    }

    /// Whole or not at all, and so that the next run understands it.
    pub fn write(&self, path: &Path) {
        let (part, text) = (path.with_extension("md.part"), self.to_string());
        assert_eq!(Table::parse(&text).as_ref(), Ok(self), "what is written is read again");
        fs::write(&part, text).unwrap();
        fs::rename(part, path).unwrap();
    }
}

const NOTHING: &str = "Nothing yet.";

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n\n{SUMS}\n", self.head)?;
        writeln!(f, "| campaign | what is counted | tried | aim | found | minutes | runs |")?;
        writeln!(f, "|---|---|---:|---:|---:|---:|---:|")?;
        for campaign in CAMPAIGNS {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.campaign == campaign.name).collect();
            let tried = grouped(rows.iter().map(|row| row.tried).sum());
            let found: u64 = rows.iter().map(|row| row.found).sum();
            let minutes: f64 = rows.iter().map(|row| row.minutes).sum();
            let (name, unit, aim, runs) = (campaign.name, campaign.unit, grouped(campaign.aim), rows.len());
            writeln!(f, "| {name} | {unit} | {tried} | {aim} | {found} | {minutes:.1} | {runs} |")?;
        }
        writeln!(f, "\n{RUNS}\n\n{RUNS_HEAD}\n{RUNS_RULE}")?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        writeln!(f, "\n{FOUND}\n")?;
        if self.found.is_empty() {
            return writeln!(f, "{NOTHING}");
        }
        self.found.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let out = Command::new(program).args(arguments).current_dir(conveyor_testing::root()).output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// With a + where the tree is not that commit's.
pub fn commit() -> String {
    let commit = said("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".into());
    let changed = said("git", &["status", "--porcelain", "--untracked-files=no", "--", ":!RELIABILITY.md"]);
    if changed.is_some_and(|changed| !changed.is_empty()) { commit + "+" } else { commit }
}

pub fn date() -> String {
    said("date", &["-u", "+%F"]).unwrap_or_else(|| "unknown".into())
}
