//! The tables of layers in ARCHITECTURE.md: one for each crate, a row for each layer, the lowest row first.

use std::path::{Path, PathBuf};

use crate::uses;

/// The part of ARCHITECTURE.md with the tables.
const SECTION: &str = "## Where things are";

/// The columns of a table of layers. Any other table in the section is for people only.
const COLUMNS: [&str; 4] = ["layer", "folders and files", "hold", "may use"];

/// The words of the first column, the lowest layer first.
const LAYERS: [&str; 5] = ["format", "pure", "edge", "surface", "wiring"];

/// The table of a crate.
#[derive(Debug)]
pub(crate) struct Table {
    /// The folder in the heading above the table: `gateway/src`.
    pub(crate) folder: PathBuf,
    pub(crate) rows: Vec<Row>,
}

/// A layer: folders and files that do not name each other, and may name the rows below.
#[derive(Debug)]
pub(crate) struct Row {
    /// The line in ARCHITECTURE.md.
    pub(crate) line: usize,
    pub(crate) layer: &'static str,
    pub(crate) places: Vec<Place>,
    /// The words of the last column.
    pub(crate) uses: Vec<&'static str>,
}

/// A folder with the file of the same name (`journal/` and `journal.rs`), or a file alone, relative to the table's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    path: PathBuf,
    is_folder: bool,
}

impl Place {
    /// Reads a folder (`journal/`) or a file (`lib.rs`).
    pub(crate) fn parse(text: &str) -> Self {
        Self { path: PathBuf::from(text.trim_end_matches('/')), is_folder: text.ends_with('/') }
    }

    pub(crate) fn holds(&self, file: &Path) -> bool {
        if self.is_folder {
            file.starts_with(&self.path) || file == self.path.with_extension("rs")
        } else {
            file == self.path
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}{}`", self.path.display(), if self.is_folder { "/" } else { "" })
    }
}

impl Table {
    /// Returns the row and the place of a file: the longest place that holds the file.
    pub(crate) fn find(&self, file: &Path) -> Option<(usize, &Place)> {
        let places = self
            .rows
            .iter()
            .enumerate()
            .flat_map(|(row, content)| content.places.iter().map(move |place| (row, place)));
        places.filter(|(_, place)| place.holds(file)).max_by_key(|(_, place)| place.path.components().count())
    }
}

impl Row {
    /// Returns the word that the row's last column lacks for a file of the row to name `path`.
    ///
    /// A row that may ask for the time may hold the time, too.
    pub(crate) fn lacks(&self, path: &str) -> Option<&'static str> {
        let allows = |word| self.uses.contains(&word) || (word == "std::time" && self.uses.contains(&"clock"));
        uses::needed_for(path).filter(|word| !allows(word))
    }

    /// Checks the row against the rows below.
    fn on(self, below: &[Self]) -> Result<Self, String> {
        let rank = |row: &Self| LAYERS.iter().position(|layer| *layer == row.layer);
        if below.last().is_some_and(|last| rank(last) > rank(&self)) {
            return Err(format!("the layers are in the order {LAYERS:?}"));
        }
        match self.places.iter().find(|place| below.iter().any(|row| row.places.contains(place))) {
            Some(place) => Err(format!("{place} has a row already")),
            None => Ok(self),
        }
    }
}

/// Reads the tables of layers; an error names the line of ARCHITECTURE.md.
pub(crate) fn parse(text: &str) -> Result<Vec<Table>, String> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let mut section = lines.skip_while(|(_, line)| *line != SECTION);
    if section.next().is_none() {
        return Err(format!("ARCHITECTURE.md has no heading `{SECTION}`"));
    }
    let section: Vec<_> = section.take_while(|(_, line)| !line.starts_with("## ")).collect();
    let mut tables = Vec::new();
    let mut folder = None;
    for block in section.chunk_by(|(_, above), (_, below)| above.starts_with('|') && below.starts_with('|')) {
        let (_, line) = block[0];
        if let Some(heading) = line.strip_prefix("### ") {
            folder = code(heading).first().map(PathBuf::from);
        } else if line.starts_with('|') && cells(line)[0] == COLUMNS[0] {
            tables
                .push(table(folder.take(), block).map_err(|(line, error)| format!("ARCHITECTURE.md:{line}: {error}"))?);
        }
    }
    if tables.is_empty() {
        return Err(format!("ARCHITECTURE.md has no table with the columns {COLUMNS:?} below `{SECTION}`"));
    }
    Ok(tables)
}

/// Reads one table; an error comes with the line.
fn table(folder: Option<PathBuf>, lines: &[(usize, &str)]) -> Result<Table, (usize, String)> {
    let (first, header) = lines[0];
    if cells(header) != COLUMNS {
        return Err((first, format!("a table of layers has the columns {COLUMNS:?}")));
    }
    let folder = folder.ok_or_else(|| (first, "a table of layers stands below `### ` and a folder".to_owned()))?;
    let mut rows: Vec<Row> = Vec::new();
    for (line, text) in lines.iter().skip(2) {
        let row = row(*line, text).and_then(|row| row.on(&rows)).map_err(|error| (*line, error))?;
        rows.push(row);
    }
    Ok(Table { folder, rows })
}

fn row(line: usize, text: &str) -> Result<Row, String> {
    let [layer, places, hold, used] = cells(text)[..] else {
        return Err(format!("a row of layers has {} cells", COLUMNS.len()));
    };
    let layer = LAYERS
        .into_iter()
        .find(|known| *known == layer)
        .ok_or_else(|| format!("the layer is `{layer}`, and has to be one of {LAYERS:?}"))?;
    let places: Vec<_> = code(places).iter().map(|place| Place::parse(place)).collect();
    if places.is_empty() {
        return Err("the row has no folder and no file in backticks".into());
    }
    if hold.is_empty() {
        return Err(format!("the row does not say what is in {}", places[0]));
    }
    let words = match code(used).as_slice() {
        [] if used == "nothing" => Vec::new(),
        [] => return Err("the last cell is empty: words in backticks, or `nothing` without them".into()),
        words => words.iter().map(|word| uses::parse(word)).collect::<Result<_, _>>()?,
    };
    match words.iter().find(|word| layer == "pure" && !uses::PURE.contains(word)) {
        Some(word) => Err(format!("a pure row may not use `{word}`, only {:?}", uses::PURE)),
        None => Ok(Row { line, layer, places, uses: words }),
    }
}

fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_start_matches('|').trim_end_matches('|').split('|').map(str::trim).collect()
}

/// The parts of `text` between backticks.
fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}
