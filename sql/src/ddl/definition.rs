//! Columns and constraints of CREATE TABLE → shape and rules of a table.
//!
//! Constraints without a name get PostgreSQL's: `t_pkey`, `t_a_b_key`, `t_a_check`, `t_a_fkey`.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field};
use datafusion::sql::sqlparser::ast;
use strata_oltp::schema::{Column, ROW_ID_COLUMN};
use strata_oltp::{ColumnId, TableId, TableSchema};

use super::columns::uses_column;
use super::{qualify, sequence};
use crate::catalog::index::{Index, TableIndex};
use crate::catalog::table::{Check, ForeignKey, Identity, Validity};
use crate::catalog::{Catalog, Rules, Table, TableName, check_name};
use crate::error::{Error, Result, SqlState};
use crate::statement::identifier;
use crate::types::{ColumnType, column_type, is_json_type, json_field};

/// A table on its way from its definition.
pub(super) struct Definition<'a> {
    catalog: &'a mut Catalog,
    name: &'a TableName,
    id: TableId,
    columns: Vec<Column>,
    chars_max: BTreeMap<usize, u32>,
    rules: Rules,
    primary_key: Option<Vec<usize>>,
    foreign_keys: Vec<(Option<ast::Ident>, ast::ForeignKeyConstraint)>,
    /// Names given to constraints so far.
    taken: Vec<String>,
}

/// What a definition comes to.
pub(super) struct Defined {
    pub shape: TableSchema,
    pub chars_max: BTreeMap<usize, u32>,
    pub rules: Rules,
}

impl<'a> Definition<'a> {
    pub(super) fn new(catalog: &'a mut Catalog, name: &'a TableName, id: TableId) -> Definition<'a> {
        Definition {
            catalog,
            name,
            id,
            columns: Vec::new(),
            chars_max: BTreeMap::new(),
            rules: Rules::default(),
            primary_key: None,
            foreign_keys: Vec::new(),
            taken: Vec::new(),
        }
    }

    /// The definition of a table that exists, to be added to.
    pub(super) fn of(catalog: &'a mut Catalog, name: &'a TableName, table: &Table) -> Definition<'a> {
        let has_key = !table.has_hidden_key();
        Definition {
            columns: table.columns().to_vec(),
            rules: table.rules.clone(),
            primary_key: has_key.then(|| table.shape.primary_key.clone()),
            taken: table.constraint_names(),
            ..Definition::new(catalog, name, table.id())
        }
    }

    /// Adds a column of a type that tables can store, without any rule.
    ///
    /// # Errors
    /// 42602, 42701.
    pub(super) fn add_plain_column(&mut self, name: String, data_type: DataType, is_nullable: bool) -> Result<usize> {
        check_name("column", &name)?;
        if self.columns.iter().any(|known| *known.field.name() == name) {
            return Err(Error::new(SqlState::DuplicateColumn, format!("column {name} is declared twice")));
        }
        let position = self.columns.len();
        let id = ColumnId(u32::try_from(position).unwrap_or(u32::MAX));
        self.columns.push(Column { id, field: Field::new(name, data_type, is_nullable) });
        Ok(position)
    }

    /// # Errors
    /// Names, types and options that cannot be.
    pub(super) fn add_column(&mut self, column: &ast::ColumnDef) -> Result<()> {
        let name = identifier(&column.name);
        let serial = serial_type(&column.data_type);
        let ColumnType { data_type, chars_max } = match &serial {
            Some(data_type) => ColumnType { data_type: data_type.clone(), chars_max: None },
            None => column_type(&column.data_type)?,
        };
        let position = self.add_plain_column(name.clone(), data_type, true)?;
        if let Some(limit) = chars_max {
            self.chars_max.insert(position, limit);
        }
        if is_json_type(&column.data_type) {
            self.columns[position].field = json_field(self.columns[position].field.clone());
        }
        let (mut is_null_said, mut is_not_null) = (false, serial.is_some());
        if serial.is_some() {
            self.add_identity(position, false, &[])?;
        }
        for option in &column.options {
            match &option.option {
                ast::ColumnOption::Null => is_null_said = true,
                ast::ColumnOption::NotNull => is_not_null = true,
                ast::ColumnOption::PrimaryKey(_) => {
                    is_not_null = true;
                    self.set_primary_key(vec![position], option.name.as_ref())?;
                }
                ast::ColumnOption::Generated { .. } => {
                    is_not_null = true;
                    self.add_generated(position, &option.option)?;
                }
                other => self.add_option(position, other, option.name.as_ref())?,
            }
        }
        if is_null_said && is_not_null {
            let message = format!("column {name} is declared both NULL and NOT NULL");
            return Err(Error::new(SqlState::InvalidTableDefinition, message));
        }
        if is_not_null {
            self.set_not_null(position);
        }
        Ok(())
    }

    fn set_not_null(&mut self, position: usize) {
        self.columns[position].field = self.columns[position].field.clone().with_nullable(false);
    }

    fn add_option(&mut self, position: usize, option: &ast::ColumnOption, name: Option<&ast::Ident>) -> Result<()> {
        let column = self.columns[position].field.name().clone();
        let id = self.columns[position].id.0;
        match option {
            ast::ColumnOption::Default(_) if self.rules.identities.contains_key(&id) => {
                let message = format!("column {column} numbers its rows and cannot have a default too");
                Err(Error::new(SqlState::Syntax, message))
            }
            ast::ColumnOption::Default(expr) => {
                match self.rules.defaults.insert(id, qualify::expression(self.catalog, expr.clone()).to_string()) {
                    None => Ok(()),
                    Some(_) => Err(Error::new(SqlState::Syntax, format!("column {column} is given two defaults"))),
                }
            }
            ast::ColumnOption::Unique(unique) => {
                refuse_timing("a unique constraint", unique.characteristics.as_ref())?;
                self.add_unique(&[position], name.or(unique.name.as_ref()), unique.nulls_distinct)
            }
            ast::ColumnOption::Check(check) => {
                let base = format!("{}_{column}_check", self.name.table);
                refuse_unenforced(check.enforced)?;
                self.add_check(&check.expr, name.or(check.name.as_ref()), &base)
            }
            ast::ColumnOption::ForeignKey(key) => {
                let mut key = key.clone();
                key.columns = vec![ast::Ident::with_quote('"', column)];
                self.foreign_keys.push((name.cloned(), key));
                Ok(())
            }
            ast::ColumnOption::Comment(text) => {
                self.rules.column_comments.insert(id, text.clone());
                Ok(())
            }
            other => Err(Error::unsupported(format!("column {column}: {other}"))),
        }
    }

    fn add_generated(&mut self, position: usize, option: &ast::ColumnOption) -> Result<()> {
        let ast::ColumnOption::Generated { generated_as, sequence_options, generation_expr, .. } = option else {
            return Err(Error::internal("a generated column that is none"));
        };
        let column = self.columns[position].field.name();
        if generation_expr.is_some() {
            return Err(Error::unsupported(format!("column {column}: GENERATED ALWAYS AS (expression)"))
                .with_hint("compute it in a view, or in the statements that write"));
        }
        let is_always = *generated_as == ast::GeneratedAs::Always;
        self.add_identity(position, is_always, sequence_options.as_deref().unwrap_or_default())
    }

    fn add_identity(&mut self, position: usize, is_always: bool, options: &[ast::SequenceOptions]) -> Result<()> {
        let Column { id, field } = &self.columns[position];
        let options = sequence::options_of(options)?;
        let shape = sequence::shape(self.catalog.new_storage(), Some(field.data_type()), &options)?;
        if self.rules.defaults.contains_key(&id.0) {
            let message = format!("column {} numbers its rows and cannot have a default too", field.name());
            return Err(Error::new(SqlState::Syntax, message));
        }
        self.rules.identities.insert(id.0, Identity { is_always, sequence: shape });
        Ok(())
    }

    /// # Errors
    /// Names and columns that are not right; what is not built.
    pub(super) fn add_constraint(&mut self, constraint: &ast::TableConstraint) -> Result<()> {
        match constraint {
            ast::TableConstraint::PrimaryKey(key) => {
                refuse_timing("a primary key", key.characteristics.as_ref())?;
                let columns =
                    self.positions(key.columns.iter().map(|column| &column.column.expr), "the primary key")?;
                self.set_primary_key(columns, key.name.as_ref())
            }
            ast::TableConstraint::Unique(unique) => {
                refuse_timing("a unique constraint", unique.characteristics.as_ref())?;
                let expressions = unique.columns.iter().map(|column| &column.column.expr);
                let columns = self.positions(expressions, "the unique constraint")?;
                self.add_unique(&columns, unique.name.as_ref(), unique.nulls_distinct)
            }
            ast::TableConstraint::Check(check) => {
                let base = match self.only_column(&check.expr) {
                    Some(column) => format!("{}_{column}_check", self.name.table),
                    None => format!("{}_check", self.name.table),
                };
                refuse_unenforced(check.enforced)?;
                self.add_check(&check.expr, check.name.as_ref(), &base)
            }
            ast::TableConstraint::ForeignKey(key) => {
                self.foreign_keys.push((key.name.clone(), key.clone()));
                Ok(())
            }
            other => Err(Error::unsupported(format!("constraint {other}"))),
        }
    }

    fn positions<'e>(&self, columns: impl Iterator<Item = &'e ast::Expr>, of: &str) -> Result<Vec<usize>> {
        let mut positions = Vec::new();
        for expr in columns {
            let ast::Expr::Identifier(ident) = expr else {
                return Err(Error::new(SqlState::InvalidTableDefinition, format!("{expr} is not a column name")));
            };
            let position = self.position(&identifier(ident))?;
            if positions.contains(&position) {
                let message = format!("column {ident} appears twice in {of}");
                return Err(Error::new(SqlState::DuplicateColumn, message));
            }
            positions.push(position);
        }
        Ok(positions)
    }

    fn position(&self, name: &str) -> Result<usize> {
        let names = || self.columns.iter().map(|known| known.field.name().as_str());
        let found = names().position(|known| known == name);
        found.ok_or_else(|| Error::undefined_column(name, &format!("table {}", self.name), names()))
    }

    fn set_primary_key(&mut self, positions: Vec<usize>, name: Option<&ast::Ident>) -> Result<()> {
        for position in &positions {
            TableIndex::check_type(&self.columns[*position].field)?;
        }
        if self.primary_key.replace(positions).is_some() {
            return Err(Error::new(SqlState::InvalidTableDefinition, "a table has only one primary key")
                .with_hint("name all of its columns in one PRIMARY KEY (…)"));
        }
        if let Some(name) = name {
            self.rules.primary_key = Some(self.constraint_name(Some(name), "")?);
        }
        Ok(())
    }

    fn add_unique(
        &mut self,
        positions: &[usize],
        name: Option<&ast::Ident>,
        nulls: ast::NullsDistinctOption,
    ) -> Result<()> {
        for position in positions {
            TableIndex::check_type(&self.columns[*position].field)?;
        }
        let base = self.name_after(positions, "key");
        let name = self.constraint_name(name, &base)?;
        self.catalog.check_free("index", &TableName { schema: self.name.schema.clone(), table: name.clone() })?;
        let index = Index {
            name,
            id: self.catalog.new_storage().0,
            columns: positions.iter().map(|position| self.columns[*position].id.0).collect(),
            is_unique: true,
            nulls_are_equal: nulls == ast::NullsDistinctOption::NotDistinct,
            is_constraint: true,
            is_building: false,
        };
        self.rules.indexes.push(index);
        Ok(())
    }

    fn add_check(&mut self, condition: &ast::Expr, name: Option<&ast::Ident>, base: &str) -> Result<()> {
        let name = self.constraint_name(name, base)?;
        self.rules.checks.push(Check { name, condition: condition.to_string(), validity: Validity::Valid });
        Ok(())
    }

    /// The one column that a condition is about, which its name then says.
    fn only_column(&self, condition: &ast::Expr) -> Option<&str> {
        let names = self.columns.iter().map(|column| column.field.name().as_str());
        let used: Vec<&str> = names.filter(|name| uses_column(condition, name)).collect();
        <[&str; 1]>::try_from(used).ok().map(|[only]| only)
    }

    /// `t_a_b_key`.
    fn name_after(&self, positions: &[usize], what: &str) -> String {
        let columns: Vec<&str> = positions.iter().map(|at| self.columns[*at].field.name().as_str()).collect();
        format!("{}_{}_{what}", self.name.table, columns.join("_"))
    }

    fn constraint_name(&mut self, given: Option<&ast::Ident>, base: &str) -> Result<String> {
        let name = match given {
            Some(ident) => {
                let name = identifier(ident);
                check_name("constraint", &name)?;
                if self.taken.contains(&name) {
                    let message = format!("constraint {name} of table {} already exists", self.name);
                    return Err(Error::new(SqlState::DuplicateObject, message));
                }
                name
            }
            None => self.catalog.free_name(&self.name.schema, base, &self.taken),
        };
        self.taken.push(name.clone());
        Ok(name)
    }

    /// # Errors
    /// A table without columns; foreign keys that do not fit.
    pub(super) fn finish(mut self) -> Result<Defined> {
        if self.columns.is_empty() {
            let message = format!("table {} has no columns", self.name);
            return Err(Error::new(SqlState::InvalidTableDefinition, message));
        }
        self.finish_foreign_keys()?;
        // The key is NOT NULL whether or not the definition says so.
        self.primary_key.clone().unwrap_or_default().into_iter().for_each(|position| self.set_not_null(position));
        let Definition { mut columns, chars_max, rules, primary_key, id, .. } = self;
        let primary_key = primary_key.unwrap_or_else(|| {
            let field = Field::new(ROW_ID_COLUMN, DataType::Int64, false);
            columns.push(Column { id: ColumnId(u32::try_from(columns.len()).unwrap_or(u32::MAX)), field });
            vec![columns.len() - 1]
        });
        Ok(Defined { shape: TableSchema::new(id, 1, columns, primary_key)?, chars_max, rules })
    }

    fn finish_foreign_keys(&mut self) -> Result<()> {
        for (name, key) in std::mem::take(&mut self.foreign_keys) {
            let key = self.foreign_key(name.as_ref(), &key)?;
            self.rules.foreign_keys.push(key);
        }
        Ok(())
    }

    /// Its rules, if nothing but constraints was added.
    ///
    /// # Errors
    /// Foreign keys that do not fit.
    pub(super) fn finish_rules(mut self) -> Result<Rules> {
        self.finish_foreign_keys()?;
        Ok(self.rules)
    }

    fn foreign_key(&mut self, name: Option<&ast::Ident>, key: &ast::ForeignKeyConstraint) -> Result<ForeignKey> {
        let mut positions = Vec::new();
        for ident in &key.columns {
            positions.push(self.position(&identifier(ident))?);
        }
        let base = self.name_after(&positions, "fkey");
        let name = self.constraint_name(name, &base)?;
        let children: Vec<Column> = positions.iter().map(|position| self.columns[*position].clone()).collect();
        let parent = crate::statement::name_parts(&key.foreign_table)?;
        let parent_name = self.catalog.locate_beside(&parent, Some(self.name))?;
        let own_keys = || {
            let unique = self.rules.indexes.iter().filter(|index| index.is_unique && !index.is_building);
            let unique = unique.map(|index| index.columns.clone());
            let id = |position: &usize| self.columns[*position].id.0;
            let primary = self.primary_key.iter().map(|key| key.iter().map(id).collect::<Vec<_>>());
            primary.chain(unique).collect::<Vec<_>>()
        };
        let parent = if parent_name == *self.name {
            Parent { id: self.id, name: &parent_name, columns: self.columns.clone(), keys: own_keys() }
        } else {
            Parent::of(self.catalog, &parent_name)?
        };
        parent.referred_by(name, &children, key)
    }
}

/// The table that a foreign key refers to, which may be the one that is being defined.
struct Parent<'a> {
    id: TableId,
    name: &'a TableName,
    columns: Vec<Column>,
    /// Column numbers of the primary key and of every unique constraint, the former first.
    keys: Vec<Vec<u32>>,
}

impl Parent<'_> {
    fn of<'a>(catalog: &Catalog, name: &'a TableName) -> Result<Parent<'a>> {
        let table = catalog.table(name)?;
        let primary = (!table.has_hidden_key()).then(|| table.key_ids());
        let unique = table.rules.indexes.iter().filter(|index| index.is_unique && !index.is_building);
        let keys = primary.into_iter().chain(unique.map(|index| index.columns.clone())).collect();
        Ok(Parent { id: table.id(), name, columns: table.columns().to_vec(), keys })
    }

    fn referred_by(&self, name: String, children: &[Column], key: &ast::ForeignKeyConstraint) -> Result<ForeignKey> {
        if key.match_kind.is_some_and(|kind| kind != ast::ConstraintReferenceMatchKind::Simple) {
            return Err(Error::unsupported("a foreign key with MATCH FULL or PARTIAL"));
        }
        let parent_columns = match key.referred_columns.as_slice() {
            [] => self.keys.first().cloned().ok_or_else(|| self.no_key("no primary key"))?,
            names => names.iter().map(|ident| self.column(&identifier(ident))).collect::<Result<Vec<_>>>()?,
        };
        if parent_columns.len() != children.len() {
            let message =
                format!("foreign key {name} has {} columns and refers to {}", children.len(), parent_columns.len());
            return Err(Error::new(SqlState::InvalidForeignKey, message));
        }
        let same = |known: &Vec<u32>| {
            known.len() == parent_columns.len() && known.iter().all(|id| parent_columns.contains(id))
        };
        if !self.keys.iter().any(same) {
            return Err(self.no_key("no primary key or unique constraint on just these columns"));
        }
        for (child, parent) in children.iter().zip(&parent_columns) {
            let parent = self.columns.iter().find(|column| column.id.0 == *parent).map(|column| &column.field);
            if parent.is_none_or(|parent| parent.data_type() != child.field.data_type()) {
                let message = format!(
                    "foreign key {name}: column {} and the one it refers to have different types",
                    child.field.name()
                );
                return Err(Error::new(SqlState::DatatypeMismatch, message).with_hint("give both the same type"));
            }
        }
        let characteristics = key.characteristics.unwrap_or_default();
        refuse_unenforced(characteristics.enforced)?;
        let is_deferred = characteristics.initially == Some(ast::DeferrableInitial::Deferred);
        Ok(ForeignKey {
            name,
            columns: children.iter().map(|column| column.id.0).collect(),
            parent: self.id.0,
            parent_columns,
            on_delete: super::action(key.on_delete),
            on_update: super::action(key.on_update),
            is_deferrable: characteristics.deferrable.unwrap_or(is_deferred),
            is_deferred,
            validity: Validity::Valid,
        })
    }

    fn column(&self, name: &str) -> Result<u32> {
        let names = || self.columns.iter().map(|column| column.field.name().as_str());
        let found = self.columns.iter().find(|column| column.field.name() == name);
        found
            .map(|column| column.id.0)
            .ok_or_else(|| Error::undefined_column(name, &format!("table {}", self.name), names()))
    }

    fn no_key(&self, what: &str) -> Error {
        Error::new(SqlState::InvalidForeignKey, format!("table {} has {what}", self.name))
            .with_hint("a foreign key refers to a primary key or to the columns of a UNIQUE constraint")
    }
}

fn refuse_timing(what: &str, characteristics: Option<&ast::ConstraintCharacteristics>) -> Result<()> {
    let Some(said) = characteristics else { return Ok(()) };
    refuse_unenforced(said.enforced)?;
    if said.deferrable == Some(true) || said.initially == Some(ast::DeferrableInitial::Deferred) {
        return Err(Error::unsupported(format!("{what} that is DEFERRABLE"))
            .with_hint("it holds at the end of each statement, so that one UPDATE may exchange values; foreign keys can be deferred"));
    }
    Ok(())
}

fn refuse_unenforced(enforced: Option<bool>) -> Result<()> {
    if enforced == Some(false) {
        return Err(Error::unsupported("a constraint that is NOT ENFORCED").with_hint("leave the constraint out"));
    }
    Ok(())
}

/// The type behind SERIAL, BIGSERIAL and SMALLSERIAL, which are integers that number their rows.
fn serial_type(sql: &ast::DataType) -> Option<DataType> {
    let ast::DataType::Custom(name, modifiers) = sql else { return None };
    if !modifiers.is_empty() {
        return None;
    }
    match name.to_string().to_lowercase().as_str() {
        "smallserial" | "serial2" => Some(DataType::Int16),
        "serial" | "serial4" => Some(DataType::Int32),
        "bigserial" | "serial8" => Some(DataType::Int64),
        _ => None,
    }
}
