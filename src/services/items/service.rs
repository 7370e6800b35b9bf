//! The service of all tables of items. Its memory is what is not durable yet, and the keys of tables that it met.

use std::collections::BTreeMap;
use std::sync::Arc;

use conveyor_run::service::{Pending, Requester, Service, Turn};
use conveyor_store::{Commit, TableRow};

use super::change::Change;
use super::{DynamoDbError, Item, Message, Operation, Reply, Request, TableSettings, key};

pub(super) struct ItemService {
    configured: Arc<BTreeMap<String, TableSettings>>,
    /// Keys of tables that began with their first use, as far as they were asked for since the start.
    found: BTreeMap<String, TableSettings>,
    pending: Pending<Place, Item>,
}

/// Table, and the key of the item's row.
type Place = (String, String);

type Deciding<'a> = Turn<'a, Message>;

/// Why nothing is changed.
enum Not {
    Answered(Reply),
    /// The store cannot be read. Who asked is dropped; a Task is issued again.
    Unread,
}

impl From<DynamoDbError> for Not {
    fn from(refusal: DynamoDbError) -> Not {
        Not::Answered(Reply::Refused(refusal))
    }
}

/// A change that was decided on.
struct Decision {
    place: Place,
    change: Change,
    /// The key of the table, where it begins with this.
    begins: Option<TableSettings>,
}

impl ItemService {
    pub fn new(configured: Arc<BTreeMap<String, TableSettings>>) -> ItemService {
        ItemService { configured, found: BTreeMap::new(), pending: Pending::default() }
    }
}

impl Service for ItemService {
    type Message = Message;

    fn handle(&mut self, turn: &mut Deciding<'_>, Message { request, requester }: Message) {
        self.pending.forget(turn.durable());
        match self.decide(turn, request) {
            Ok(decision) => self.store(turn, decision, requester),
            Err(Not::Answered(reply)) => turn.answer(requester, reply),
            Err(Not::Unread) => drop(requester),
        }
    }
}

impl ItemService {
    fn decide(&mut self, turn: &mut Deciding<'_>, request: Request) -> Result<Decision, Not> {
        let known = self.schema(turn, &request.table)?;
        let schema = match &known {
            Some(known) => known.clone(),
            None => key::of_first_use(request.operation, &request.given)?,
        };
        let key = key::of_item(&schema, request.operation, &request.given)?;
        let place = (request.table.clone(), key::of_row(&key));
        if request.operation == Operation::Get {
            return Err(Not::Answered(Reply::Got(self.item(turn, &place)?)));
        }
        let before = if request.needs_item() { self.item(turn, &place)? } else { None };
        let change = request.change(&key, before.as_ref())?;
        Ok(Decision { place, change, begins: known.is_none().then_some(schema) })
    }

    /// The table's key: configured, or what its first use said.
    fn schema(&mut self, turn: &mut Deciding<'_>, table: &str) -> Result<Option<TableSettings>, Not> {
        if let Some(known) = self.configured.get(table).or(self.found.get(table)) {
            return Ok(Some(known.clone()));
        }
        let row = turn.read(|reader| reader.table(table)).ok_or(Not::Unread)?;
        let known = row.map(|TableRow { key, range }| TableSettings { key, range });
        if let Some(known) = &known {
            self.found.insert(table.to_owned(), known.clone());
        }
        Ok(known)
    }

    /// The item as it will be once all that was decided is durable.
    fn item(&self, turn: &mut Deciding<'_>, place: &Place) -> Result<Option<Item>, Not> {
        if let Some(pending) = self.pending.get(place) {
            return Ok(pending.cloned());
        }
        let (table, key) = place;
        match turn.read(|reader| reader.item(table, key)).ok_or(Not::Unread)? {
            None => Ok(None),
            Some(text) => match serde_json::from_str(&text) {
                Ok(item) => Ok(Some(item)),
                Err(e) => Err(Not::Answered(Reply::Damaged(e.to_string()))),
            },
        }
    }

    fn store(&mut self, turn: &mut Deciding<'_>, decision: Decision, requester: Requester<Reply>) {
        let Decision { place, change: Change { after, shown }, begins } = decision;
        let (mut commit, (table, key)) = (Commit::new(), &place);
        if let Some(TableSettings { key, range }) = &begins {
            commit.put_table(table, &TableRow { key: key.clone(), range: range.clone() });
        }
        match &after {
            Some((_, text)) => commit.put_item(table, key, text),
            None => commit.delete_item(table, key),
        };
        let Some(number) = turn.settle(commit, requester, Reply::Changed(shown)) else { return };
        if let Some(schema) = begins {
            self.found.insert(table.clone(), schema);
        }
        self.pending.put(number, place, after.map(|(item, _)| item));
    }
}
