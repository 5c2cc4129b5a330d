//! A table as Parquet: each column with its type, no cell rounded.

use std::sync::Arc;

use jiff::Timestamp;
use parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{Type, TypePtr};

use super::format::Kind;

/// Decimals after the point: a micro-neuron is 11 of the last one, in dollars.
const SCALE: usize = 12;
/// All that sixteen bytes hold.
const PRECISION: i32 = 38;
/// Rows that are written at once.
const GROUP_ROWS: usize = 65_536;

/// The bytes of a file. A cell that is not of its column's kind is an error.
pub(super) fn write(name: &str, columns: &[(&str, Kind)], rows: &[Vec<String>]) -> Result<Vec<u8>> {
    let fields = columns.iter().map(|(name, kind)| field(name, *kind)).collect::<Result<_>>()?;
    let schema = Type::group_type_builder(name).with_fields(fields).build()?;
    let properties = WriterProperties::builder().set_created_by(concat!("tollgate ", env!("CARGO_PKG_VERSION")).into());
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties.build()))?;
    for rows in rows.chunks(GROUP_ROWS) {
        let mut group = writer.next_row_group()?;
        for (place, (_, kind)) in columns.iter().enumerate() {
            let Some(mut column) = group.next_column()? else { break };
            let cells: Vec<_> = rows.iter().map(|row| row.get(place).map_or("", |cell| cell)).collect();
            fill(&mut column, *kind, &cells)?;
            column.close()?;
        }
        group.close()?;
    }
    writer.into_inner()
}

fn field(name: &str, kind: Kind) -> Result<TypePtr> {
    let (physical, logical) = match kind {
        Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        Kind::Decimal => {
            let scale = i32::try_from(SCALE).unwrap_or(0);
            (Physical::FIXED_LEN_BYTE_ARRAY, Some(LogicalType::decimal(scale, PRECISION)))
        }
        Kind::Count => (Physical::INT64, None),
        Kind::Moment => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MILLIS))),
    };
    let mut field =
        Type::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL).with_logical_type(logical);
    if let Kind::Decimal = kind {
        field = field.with_length(16).with_precision(PRECISION).with_scale(i32::try_from(SCALE).unwrap_or(0));
    }
    Ok(Arc::new(field.build()?))
}

fn fill(column: &mut SerializedColumnWriter<'_>, kind: Kind, cells: &[&str]) -> Result<()> {
    let levels: Vec<i16> = cells.iter().map(|cell| i16::from(!cell.is_empty())).collect();
    let told = || cells.iter().copied().filter(|cell| !cell.is_empty());
    let levels = Some(&*levels);
    match kind {
        Kind::Text => {
            let values: Vec<_> = told().map(ByteArray::from).collect();
            column.typed::<ByteArrayType>().write_batch(&values, levels, None)?;
        }
        Kind::Decimal => {
            let values: Vec<_> = told().map(decimal).collect::<Result<_>>()?;
            column.typed::<FixedLenByteArrayType>().write_batch(&values, levels, None)?;
        }
        Kind::Count => {
            let values: Vec<i64> =
                told().map(|cell| cell.parse().map_err(|_| wrong("whole number", cell))).collect::<Result<_>>()?;
            column.typed::<Int64Type>().write_batch(&values, levels, None)?;
        }
        Kind::Moment => {
            let moment = |cell: &str| cell.parse::<Timestamp>().map_err(|_| wrong("moment", cell));
            let values: Vec<i64> = told().map(|cell| Ok(moment(cell)?.as_millisecond())).collect::<Result<_>>()?;
            column.typed::<Int64Type>().write_batch(&values, levels, None)?;
        }
    }
    Ok(())
}

fn decimal(text: &str) -> Result<FixedLenByteArray> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    if rest.len() > SCALE {
        return Err(wrong("decimal", text));
    }
    let figure: i128 = format!("{whole}{rest:0<SCALE$}").parse().map_err(|_| wrong("decimal", text))?;
    Ok(ByteArray::from(figure.to_be_bytes().to_vec()).into())
}

fn wrong(what: &str, cell: &str) -> ParquetError {
    ParquetError::General(format!("{cell:?} is no {what}"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;

    #[test]
    fn cells_come_back_as_what_they_were_and_none_is_rounded() {
        let columns = [("name", Kind::Text), ("cost", Kind::Decimal), ("calls", Kind::Count), ("at", Kind::Moment)];
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        let rows = [
            row(["\"é\"", "0.000000000011", "7", "2026-11-28T00:00:00Z"]),
            row(["", "", "", ""]),
            row(["b", "12345678901234567890.5", "0", "1970-01-01T00:00:00Z"]),
        ];
        let file = SerializedFileReader::new(Bytes::from(write("t", &columns, &rows).unwrap())).unwrap();
        let read: Vec<_> = file.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
        assert_eq!(read.len(), 3);
        assert!(read[0].contains("cost: 0.000000000011, calls: 7, at: 2026-11-28"), "{read:?}");
        assert_eq!(read[1], "{name: null, cost: null, calls: null, at: null}");
        assert!(read[2].contains("12345678901234567890.500000000000"), "{read:?}");
        for wrong in [["a", "1.0000000000001", "", ""], ["a", "x", "", ""], ["", "", "1.5", ""], ["", "", "", "today"]]
        {
            assert!(write("t", &columns, &[row(wrong)]).is_err(), "{wrong:?}");
        }
        assert!(!write("t", &columns, &[]).unwrap().is_empty());
    }
}
