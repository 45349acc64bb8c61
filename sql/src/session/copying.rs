//! COPY in a session: as a statement, with a file; or with bytes that the caller gives or takes.

use std::io::{Read, Write};

use super::work::Work;
use super::{Session, StatementResult};
use crate::copy::{self, Input, Options, Output};
use crate::error::{Error, Result, SqlState};
use crate::statement::copy::CopyStatement;
use crate::statement::{Kind, Statement};

impl Session {
    /// Runs `COPY table FROM STDIN …` with the bytes of `input`, in the open transaction or one of its own; the number of
    /// rows. Reads in pieces, so `input` may be as long as the transaction's writes fit the memory budget.
    ///
    /// # Errors
    /// 42601 for another statement; as COPY. 40001 is not retried, because the input is used up.
    pub async fn copy_in(&mut self, statement: &Statement, input: impl Read + Send + 'static) -> Result<u64> {
        let copy = copy_of(statement, true)?;
        let engine = self.engine.clone();
        let input = Input::new(&engine, &copy.place, Some(Box::new(input)))?;
        Ok(self.write(&Work::Copy(copy, &input)).await?.count().unwrap_or_default())
    }

    /// Runs `COPY … TO STDOUT …` into `output`; the number of rows. What was written before a failure is worth nothing.
    ///
    /// # Errors
    /// 42601 for another statement; as COPY.
    pub async fn copy_out(&mut self, statement: &Statement, output: &mut (dyn Write + Send)) -> Result<u64> {
        let copy = copy_of(statement, false)?;
        let output = Output::new(&self.engine, &copy.place, Some(output))?;
        self.copy_to(copy, output).await
    }

    /// COPY as a statement of a script.
    pub(super) async fn copy(&mut self, copy: &CopyStatement) -> Result<StatementResult> {
        let engine = self.engine.clone();
        if copy.is_from {
            let input = Input::new(&engine, &copy.place, None)?;
            return self.write(&Work::Copy(copy, &input)).await;
        }
        let output = Output::new(&engine, &copy.place, None)?;
        let count = self.copy_to(copy, output).await?;
        Ok(StatementResult::Affected { tag: "COPY", count: Some(count) })
    }

    async fn copy_to(&mut self, copy: &CopyStatement, output: Output<'_>) -> Result<u64> {
        let options = Options::new(copy)?;
        let query = Kind::Query(Box::new(copy::source_query(copy)?));
        let rows = self.start_query(query).await?.into_rows().ok_or_else(|| Error::internal("a query without rows"))?;
        copy::unload(&self.engine, rows, &options, output).await
    }
}

fn copy_of(statement: &Statement, is_from: bool) -> Result<&CopyStatement> {
    match &statement.kind {
        Kind::Copy(copy) if copy.is_from == is_from => Ok(copy),
        _ => {
            let what = if is_from { "COPY … FROM STDIN" } else { "COPY … TO STDOUT" };
            Err(Error::new(SqlState::Syntax, format!("expected {what}")))
        }
    }
}
