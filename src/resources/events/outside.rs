//! What the dispatcher of events reaches through adapters: functions, and what authorises a webhook.

use std::sync::Arc;

use conveyor_services::events::Outside;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use reqwest::RequestBuilder;

use crate::functions::Functions;
use crate::http::Connections;

pub struct OutsideTargets {
    pub functions: Arc<Functions>,
    pub connections: Arc<Connections>,
}

impl Outside for OutsideTargets {
    fn call<'a>(&'a self, function: &'a str, event: &'a str, id: &'a str) -> BoxFuture<'a, Result<(), String>> {
        let called = async move {
            let ran = self.functions.result(function, event, id).await;
            ran.map(drop).map_err(|e| format!("{}: {}", e.error, e.cause))
        };
        called.boxed()
    }

    fn authorise<'a>(
        &'a self,
        connection: &'a str,
        request: RequestBuilder,
    ) -> BoxFuture<'a, Result<RequestBuilder, String>> {
        self.connections.authorise(connection, request).boxed()
    }
}
