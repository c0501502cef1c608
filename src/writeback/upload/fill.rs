//! Fetching from its base what a draft lacks.

use std::io;
use std::ops::Range;
use std::time::Duration;

use super::{Job, Uploader};
use crate::etag::ETag;
use crate::writeback::draft::Draft;
use crate::writeback::plan::{PartSource, Plan, plan};
use crate::writeback::record::Base;
use crate::writeback::state::State;
use crate::writeback::uploaded::{UploadError, is_final};

/// Answers to one request that may break off in a row without a byte.
const BREAKS: u32 = 6;
const BREATH: Duration = Duration::from_millis(100);

impl Uploader {
    /// Fetches what an upload will need first.
    pub(super) async fn fill_first(&self, draft: &Draft, state: &State) -> Result<(), UploadError> {
        let range = match plan(state.shape(), self.part_size) {
            Plan::Put => Some(0..state.size),
            Plan::Copy => None,
            Plan::Parts(parts) => parts.into_iter().find_map(|part| match part {
                PartSource::Here(range) => Some(range),
                PartSource::Base(_) | PartSource::Zeros { .. } => None,
            }),
        };
        match range {
            Some(range) => self.fetch(draft, range).await,
            None => Ok(()),
        }
    }

    /// Fetches what is missing of a range.
    pub(super) async fn fill(&self, job: &Job<'_>, range: Range<u64>) -> Result<(), UploadError> {
        self.fetch(job.draft, range).await
    }

    /// Fetches all that is missing, so that the base may go.
    ///
    /// # Errors
    /// When it cannot be fetched, or does not fit.
    pub async fn fill_all(&self, draft: &Draft) -> Result<(), UploadError> {
        let size = draft.state().size;
        self.fetch(draft, 0..size).await
    }

    /// Fetches what is missing of a range of a draft from its base.
    async fn fetch(&self, draft: &Draft, range: Range<u64>) -> Result<(), UploadError> {
        let (gaps, base) = {
            let state = draft.state();
            let range = range.start..range.end.min(state.base_limit).max(range.start);
            (state.local.gaps(range), state.base.clone())
        };
        let Some(base) = base else { return Ok(()) };
        for gap in gaps {
            let mut at = gap.start;
            if let Some(pieces) = self.contents.cached(&base, gap.clone()) {
                for bytes in pieces {
                    draft.fetched(at, &bytes)?;
                    at += bytes.len() as u64;
                }
            }
            let mut failures = 0;
            while at < gap.end {
                let before = at;
                let Err(error) = self.fetch_from(draft, &base, &mut at, gap.end).await else { continue };
                failures = if at > before { 1 } else { failures + 1 };
                match error {
                    UploadError::Store(error) if !is_final(error.kind) && failures < BREAKS => {
                        tracing::info!(%error, "an answer broke off; asking for the rest");
                        tokio::time::sleep(BREATH * failures).await;
                    }
                    error => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Fetches what follows, as far as one answer brings it.
    async fn fetch_from(
        &self,
        draft: &Draft,
        base: &Base,
        at: &mut u64,
        end: u64,
    ) -> Result<(), UploadError> {
        let mut got = self.store.get(&base.key, Some(*at..end), base.size).await?;
        if got.head.etag != ETag::new(&base.etag) || got.head.size != base.size {
            return Err(UploadError::Conflict(Box::new(got.head)));
        }
        while let Some(bytes) = got.body.next().await? {
            draft.fetched(*at, &bytes)?;
            *at += bytes.len() as u64;
        }
        if *at < end { Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()) } else { Ok(()) }
    }
}
