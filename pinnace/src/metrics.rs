//! Metrics for Prometheus: a page that is made anew for each scrape from what the daemon knows, and
//! the HTTP listener that hands it out.
//!
//! Nothing is counted twice: the page holds no counters of its own, so it says what `status` says.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

mod page;

pub(crate) use page::{Distribution, Labels, Page, labels};

/// Serves `GET /metrics` on a TCP address, in a thread that ends with the process. A daemon goes on
/// without metrics where that is not possible: what it is there for matters more.
pub(crate) fn serve_if_possible<S>(listen: SocketAddr, scrape: S)
where
    S: Fn() -> Result<Page> + Clone + Send + Sync + 'static,
{
    if let Err(error) = serve(listen, scrape) {
        tracing::error!("no metrics: {error:#}");
    }
}

fn serve<S>(listen: SocketAddr, scrape: S) -> Result<()>
where
    S: Fn() -> Result<Page> + Clone + Send + Sync + 'static,
{
    let listening = || format!("listening for scrapes of metrics at {listen}");
    let listener = std::net::TcpListener::bind(listen).with_context(listening)?;
    listener.set_nonblocking(true).with_context(listening)?;
    let bound = listener.local_addr().with_context(listening)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let page = move || async move {
        // Who is asked may take its time.
        match tokio::task::spawn_blocking(move || scrape()?.text()).await {
            Ok(page) => answer(page),
            Err(error) => answer(Err(error.into())),
        }
    };
    let router = Router::new().route("/metrics", get(page));
    let serve = async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        axum::serve(listener, router).await
    };
    std::thread::Builder::new().name("metrics".into()).spawn(move || {
        if let Err(error) = runtime.block_on(serve) {
            tracing::error!(%error, "metrics are served no longer");
        }
    })?;
    tracing::info!(listen = %bound, "metrics are served");
    Ok(())
}

fn answer(page: Result<String>) -> Response {
    match page {
        Ok(page) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}\n")).into_response(),
    }
}
