//! The job table and other tables of items: DynamoDB's put, get, update and delete on the appliance's own store.

mod condition;
mod expression;
mod update;
mod value;
