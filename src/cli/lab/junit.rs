//! Results as JUnit XML, which the test tabs of CI services read.

use std::fs::File;
use std::io;
use std::path::Path;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

/// What a case came to; a failure has its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub title: String,
    pub identity: String,
    pub failure: Option<String>,
}

/// Writes all outcomes as one suite.
///
/// # Errors
/// A file that cannot be written.
pub fn write(path: &Path, suite: &str, outcomes: &[Outcome]) -> io::Result<()> {
    let mut cases = TestSuite::new(suite);
    for outcome in outcomes {
        let status = match &outcome.failure {
            None => TestCaseStatus::success(),
            Some(why) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(why.as_str()).set_type("expectation");
                status
            }
        };
        let mut case = TestCase::new(outcome.title.as_str(), status);
        case.set_classname(outcome.identity.as_str());
        cases.add_test_case(case);
    }
    let mut report = Report::new("supafs test");
    report.add_test_suite(cases);
    report.serialize(File::create(path)?).map_err(io::Error::other)
}
