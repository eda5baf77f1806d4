//! stub
use super::Reactor;
use crate::io::Census;
use crate::wire::http1::Response;
impl Reactor {
    pub(super) fn metrics_page(&self, _: &Census) -> Response {
        Response::not_found()
    }
}
