//! From rows to what PostgreSQL takes them as: to one array a column, of which statements make rows again (`UNNEST`); or to
//! the binary format of COPY, which costs PostgreSQL least, but knows no rows that are there already.
//!
//! The statements unnest in a SELECT list, never in FROM: there PostgreSQL would put every array into a store of its own first,
//! which for the 39 columns of a chat takes 29 µs a row instead of 9.

use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgConnection, PgCopyIn, PgHasArrayType, PgTypeInfo};
use sqlx::{Postgres, Type};

use crate::projection::pg_value::PgJson;

/// One column of these rows.
pub(crate) fn column<'a, R, T>(rows: &[&'a R], of: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(|row| of(row)).collect()
}

/// JSON on its way into a column of type `jsonb`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jsonb<'a>(pub(super) &'a PgJson);

/// Rows on their way into COPY, in its binary format: a header, then for each row the number of its values, and for each value
/// its length and what the driver encodes it as. PostgreSQL works on the first ones while the next are encoded.
pub(super) struct CopyIn<'c> {
    copy: PgCopyIn<&'c mut PgConnection>,
    buffer: PgArgumentBuffer,
    /// Where the row begins that is being written.
    row: usize,
    values: i16,
    error: Option<BoxDynError>,
}

/// Writes rows, each of functions of it, by a [`CopyIn`].
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

/// Signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// How much is sent at a time.
const FLUSH_BYTES: usize = 256 * 1024;
/// In the place of a number of values.
const TRAILER: i16 = -1;
/// In the place of a length.
const NULL: i32 = -1;
/// What jsonb begins with on the wire.
const JSONB_VERSION: u8 = 1;

// === impl CopyIn ===

impl<'c> CopyIn<'c> {
    /// Into these columns of a table.
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
            self.copy.send(&self.buffer[..]).await?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Ends it. What PostgreSQL has against a row is said here.
    pub(super) async fn end(mut self) -> Result<(), sqlx::Error> {
        if let Some(error) = self.error {
            self.copy.abort("a row cannot be encoded").await?;
            return Err(sqlx::Error::Encode(error));
        }
        self.buffer.extend_from_slice(&TRAILER.to_be_bytes());
        self.copy.send(&self.buffer[..]).await?;
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
