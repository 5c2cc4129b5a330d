//! Several gates' records, read as one.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::error::RecordsError;
use super::query::Archive;
use super::schema;

/// SQLite attaches ten to the first.
pub const MOST_FILES: usize = 11;
/// A copy has the newest calls of the other, or the other has those of the copy.
const LOOKED_UP: usize = 1000;
/// What archives are asked for, and of which each gate has its own part.
const TABLES: [&str; 3] = ["records", "quarters", "payloads"];

impl Archive {
    /// Opens the records of several gates, to read them as if they were one: sums are over all of them. Files of which one is a copy
    /// of another are refused, for what both have would count twice.
    ///
    /// [`delete`](Self::delete) and [`judge`](Self::judge) fail on more than one: each gate keeps its own.
    pub fn open_all(paths: &[impl AsRef<Path>]) -> Result<Self, RecordsError> {
        let Some((first, more)) = paths.split_first() else {
            return Err(RecordsError::System(std::io::Error::other("no file is named")));
        };
        if paths.len() > MOST_FILES {
            return Err(RecordsError::TooMany { most: MOST_FILES });
        }
        let archive = Self::open(first.as_ref())?;
        let named =
            |place: usize| paths.get(place).map_or_else(String::new, |path| path.as_ref().display().to_string());
        if more.is_empty() {
            return Ok(archive);
        }
        let connection = &archive.connection;
        for (place, path) in more.iter().enumerate() {
            let (path, name) = (path.as_ref(), schema_name(place + 1));
            // One that is not there is not made.
            let attached =
                connection.execute(&format!("ATTACH DATABASE ?1 AS {name}"), params![path.to_string_lossy()]);
            attached.map_err(|why| RecordsError::Database { path: named(place + 1), why: why.into() })?;
        }
        for place in 0..paths.len() {
            let version = format!("PRAGMA {}.user_version", schema_name(place));
            let version = connection.query_row(&version, [], |row| row.get::<_, i64>(0));
            let version = version.map_err(|why| RecordsError::Database { path: named(place), why: why.into() })?;
            if version != schema::VERSION {
                let path = named(place);
                let is_later = version > schema::VERSION;
                return Err(if is_later { RecordsError::Later { path } } else { RecordsError::Earlier { path } });
            }
        }
        for place in 1..paths.len() {
            for other in 0..place {
                if archive.told(has_calls_of(connection, place, other))? {
                    return Err(RecordsError::Copied { path: named(place), other: named(other) });
                }
            }
        }
        let views: rusqlite::Result<String> = TABLES.iter().map(|table| view(connection, table, paths.len())).collect();
        archive.told(views.and_then(|views| connection.execute_batch(&views)))?;
        Ok(archive)
    }
}

fn schema_name(place: usize) -> String {
    if place == 0 { "main".into() } else { format!("more{place}") }
}

/// The rows of all files under the table's own name, which hides the first file's.
fn view(connection: &Connection, table: &str, files: usize) -> rusqlite::Result<String> {
    let columns = format!("SELECT group_concat(name) FROM pragma_table_info('{table}')");
    let columns: String = connection.query_row(&columns, [], |row| row.get(0))?;
    let part = |place| format!("SELECT {columns} FROM {}.{table}", schema_name(place));
    let parts: Vec<_> = (0..files).map(part).collect();
    Ok(format!("CREATE TEMP VIEW {table} AS {};", parts.join(" UNION ALL ")))
}

/// One has calls of the other's.
fn has_calls_of(connection: &Connection, one: usize, other: usize) -> rusqlite::Result<bool> {
    let [one, other] = [one, other].map(schema_name);
    let newest = |of: &str, also: &str| {
        let sql = format!(
            "SELECT 1 FROM (SELECT id FROM {of}.records ORDER BY id DESC LIMIT {LOOKED_UP}) \
             WHERE id IN (SELECT id FROM {also}.records) LIMIT 1"
        );
        connection.query_row(&sql, [], |_| Ok(())).optional()
    };
    Ok(newest(&one, &other)?.is_some() || newest(&other, &one)?.is_some())
}
