//! The conversion from rows to the two forms in which PostgreSQL receives rows: one array for each column, turned into
//! rows again by `UNNEST` in the statement; or the binary format of COPY, which costs PostgreSQL least but cannot
//! handle existing rows.
//!
//! The statements unnest in the SELECT list, never in FROM. In FROM, PostgreSQL would first store each array in a tuple
//! store, which takes 29 µs instead of 9 µs for a row of 39 columns of `chats`.

use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgConnection, PgCopyIn, PgHasArrayType, PgTypeInfo};
use sqlx::{Postgres, Type};

use crate::projection::pg_value::PgJson;

/// The values of one column, taken from all rows.
pub(crate) fn column<'a, R, T>(rows: &[&'a R], of: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(|row| of(row)).collect()
}

/// A JSON value to be written to a column of type `jsonb`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jsonb<'a>(pub(super) &'a PgJson);

/// A COPY in PostgreSQL's binary format: a header, then for each row the number of values, and for each value the
/// length and the driver's encoding. Full buffers are sent early, so PostgreSQL works on the first rows while later
/// rows are encoded.
pub(super) struct CopyIn<'c> {
    copy: PgCopyIn<&'c mut PgConnection>,
    buffer: PgArgumentBuffer,
    /// The offset in `buffer` at which the current row begins.
    row: usize,
    values: i16,
    error: Option<BoxDynError>,
}

/// Writes rows through a [`CopyIn`], with one function for each value of a row.
macro_rules! copy_rows {
    (($tx:ident, $table:literal, $columns:ident, $rows:ident) $($value:expr,)*) => {
        if $rows.is_empty() {
            Ok(())
        } else {
            let mut copy = $crate::store::write::CopyIn::begin($tx, $table, $columns).await?;
            for &row in $rows {
                copy.begin_row();
                $(copy.put(row, $value);)*
                copy.end_row().await?;
            }
            copy.end().await
        }
    };
}
pub(super) use copy_rows;

/// The file header of the binary format: signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The size at which the buffer is sent, in bytes.
const FLUSH_BYTES: usize = 256 * 1024;
/// The largest buffer that is kept for the next rows, in bytes.
const MAX_KEPT_BYTES: usize = 1024 * 1024;
/// The end marker, in place of a number of values.
const TRAILER: i16 = -1;
/// NULL, in place of the length of a value.
const NULL: i32 = -1;
/// The version byte before a jsonb value on the wire.
const JSONB_VERSION: u8 = 1;

// === impl CopyIn ===

impl<'c> CopyIn<'c> {
    /// Begins a COPY into the given columns of a table.
    pub(super) async fn begin(
        connection: &'c mut PgConnection,
        table: &str,
        columns: &str,
    ) -> Result<Self, sqlx::Error> {
        let statement = format!("COPY {table} ({columns}) FROM STDIN (FORMAT binary)");
        let copy = connection.copy_in_raw(&statement).await?;
        let mut buffer = PgArgumentBuffer::default();
        buffer.extend_from_slice(HEADER);
        Ok(Self { copy, buffer, row: 0, values: 0, error: None })
    }

    pub(super) fn begin_row(&mut self) {
        (self.row, self.values) = (self.buffer.len(), 0);
        self.buffer.extend_from_slice(&self.values.to_be_bytes());
    }

    pub(super) fn put<'a, R, T: Encode<'a, Postgres>>(&mut self, row: &'a R, value: impl Fn(&'a R) -> T) {
        self.values += 1;
        let length_at = self.buffer.len();
        self.buffer.extend_from_slice(&NULL.to_be_bytes());
        let begins = self.buffer.len();
        match value(row).encode_by_ref(&mut self.buffer) {
            Ok(IsNull::Yes) => {}
            Ok(IsNull::No) => match i32::try_from(self.buffer.len() - begins) {
                Ok(length) => self.buffer[length_at..begins].copy_from_slice(&length.to_be_bytes()),
                Err(error) => self.error = Some(error.into()),
            },
            Err(error) => self.error = Some(error),
        }
    }

    pub(super) async fn end_row(&mut self) -> Result<(), sqlx::Error> {
        let row = self.row;
        self.buffer[row..row + size_of::<i16>()].copy_from_slice(&self.values.to_be_bytes());
        if self.buffer.len() >= FLUSH_BYTES && self.error.is_none() {
            self.send().await?;
        }
        Ok(())
    }

    /// Sends the buffer in parts, because the driver copies each part before sending.
    async fn send(&mut self) -> Result<(), sqlx::Error> {
        for part in self.buffer.chunks(FLUSH_BYTES) {
            self.copy.send(part).await?;
        }
        // The buffer of a large row is not kept.
        if self.buffer.len() > MAX_KEPT_BYTES {
            self.buffer = PgArgumentBuffer::default();
        } else {
            self.buffer.clear();
        }
        Ok(())
    }

    /// Ends the COPY. Errors of PostgreSQL about any row are returned here.
    pub(super) async fn end(mut self) -> Result<(), sqlx::Error> {
        if let Some(error) = self.error {
            self.copy.abort("a row cannot be encoded").await?;
            return Err(sqlx::Error::Encode(error));
        }
        self.buffer.extend_from_slice(&TRAILER.to_be_bytes());
        self.send().await?;
        self.copy.finish().await?;
        Ok(())
    }
}

// === impl Jsonb ===

impl Encode<'_, Postgres> for Jsonb<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.push(JSONB_VERSION);
        buffer.extend_from_slice(self.0.as_str().as_bytes());
        Ok(IsNull::No)
    }
}

impl Type<Postgres> for Jsonb<'_> {
    fn type_info() -> PgTypeInfo {
        <sqlx::types::Json<()> as Type<Postgres>>::type_info()
    }
}

impl PgHasArrayType for Jsonb<'_> {
    fn array_type_info() -> PgTypeInfo {
        <sqlx::types::Json<()> as PgHasArrayType>::array_type_info()
    }
}
