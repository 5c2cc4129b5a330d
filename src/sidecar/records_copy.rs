//! `GET /records`: a copy of the records, as a file of SQLite, for who sums up those of several gates. It has no bodies.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;

use super::admin_state::Admin;
use super::logs::{ask, written};
use crate::readers::records::{Archive, RecordsError};

const PIECE_BYTES: usize = 256 << 10;

pub(super) fn router() -> Router<Admin> {
    Router::new().route("/records", get(copy))
}

async fn copy(State(admin): State<Admin>) -> Response {
    let Some(path) = admin.records_path.clone() else { return ask(&admin, |_| Ok(().into_response())).await };
    written(&admin).await;
    ask(&admin, move |archive| {
        let (file, bytes) = copied(archive, &path)?;
        let headers =
            [(header::CONTENT_TYPE, "application/vnd.sqlite3".to_owned()), (header::CONTENT_LENGTH, bytes.to_string())];
        let pieces = stream::unfold(Some(file), |file| async {
            let read = tokio::task::spawn_blocking(move || piece(file?)).await;
            read.unwrap_or_else(|error| Some((Err(std::io::Error::other(error)), None)))
        });
        Ok((headers, Body::from_stream(pieces)).into_response())
    })
    .await
}

/// A file beside the records, which has no name any more when it is read. There is room where they are written, if anywhere.
fn copied(archive: &Archive, records: &Path) -> Result<(File, u64), RecordsError> {
    let mut name = records.as_os_str().to_owned();
    name.push(format!(".copy-{:016x}", fastrand::u64(..)));
    let made = archive.copy_to(Path::new(&name)).and_then(|()| {
        let file = File::open(&name)?;
        let bytes = file.metadata()?.len();
        Ok((file, bytes))
    });
    drop(std::fs::remove_file(&name));
    made
}

/// The next one, and the file where there may be more.
fn piece(mut file: File) -> Option<(std::io::Result<Bytes>, Option<File>)> {
    let mut piece = vec![0; PIECE_BYTES];
    match file.read(&mut piece) {
        Ok(0) => None,
        Ok(bytes) => {
            piece.truncate(bytes);
            Some((Ok(piece.into()), Some(file)))
        }
        Err(error) => Some((Err(error), None)),
    }
}
