//! A copy of the records, for who reads those of several gates.

use std::path::Path;

use rusqlite::{Connection, params};

use super::error::RecordsError;
use super::query::Archive;
use super::schema;

/// What a copy has. Bodies, keys and the budgets' own stay where they are.
const TABLES: [&str; 2] = ["records", "quarters"];

impl Archive {
    /// Makes a file of the records and sums that are there at this moment; what is written meanwhile is not in it. Bodies are not
    /// copied, and nothing that budgets keep.
    pub fn copy_to(&self, path: &Path) -> Result<(), RecordsError> {
        let copied = Connection::open(path).and_then(|copy| schema::make(&copy));
        self.told(copied.and_then(|()| fill(&self.connection, path)))
    }
}

fn fill(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    connection.execute("ATTACH DATABASE ?1 AS copy", params![path.to_string_lossy()])?;
    let parts: rusqlite::Result<String> = TABLES.iter().map(|table| part(connection, table)).collect();
    // One that breaks off is thrown away, so it needs no journal.
    let all = format!("PRAGMA copy.journal_mode = off; PRAGMA copy.synchronous = off; BEGIN; {} COMMIT;", parts?);
    connection.execute_batch(&all)?;
    connection.execute_batch("DETACH DATABASE copy")
}

fn part(connection: &Connection, table: &str) -> rusqlite::Result<String> {
    let columns = format!("SELECT group_concat(name) FROM pragma_table_info('{table}')");
    let columns: String = connection.query_row(&columns, [], |row| row.get(0))?;
    Ok(format!("INSERT INTO copy.{table} ({columns}) SELECT {columns} FROM main.{table};"))
}
