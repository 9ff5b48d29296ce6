//! One object of a pass: every block is verified, what is damaged is repaired
//! at once and looked at again.

use super::cursor::Within;
use crate::archive::{Archive, ArchiveError, ArchiveResult, Depth, HealthScan, ObjectHealth, ObjectRef, ScanControl};

/// What came of an object.
#[derive(Debug)]
pub(super) enum Examined {
    /// All of it was verified. The health is that after the repair.
    Done { health: ObjectHealth, damaged: bool },
    /// It was stopped; where to go on, if not at the beginning.
    Interrupted(Option<Within>),
    /// Neither copy of its manifest is readable.
    ManifestLost(ArchiveError),
    /// It could not be looked at.
    Failed(ArchiveError),
}

/// An object under examination.
struct Examination<'a> {
    archive: &'a Archive,
    scan: HealthScan,
    /// Counts what is verified.
    control: ScanControl<'a>,
    /// Only paces: for what is read a second time.
    again: ScanControl<'a>,
    damaged: bool,
}

/// Verifies and repairs an object, from `resume` on where that is a place in
/// it. `after_block` is told the place after each block.
pub(super) fn examine(
    archive: &Archive,
    object: &ObjectRef,
    resume: Option<&Within>,
    control: ScanControl<'_>,
    again: ScanControl<'_>,
    after_block: &mut dyn FnMut(&HealthScan, bool),
) -> Examined {
    let scan = match archive.health_scan(object, Depth::Full) {
        Ok(scan) => scan,
        Err(error @ ArchiveError::ManifestLost { .. }) => return Examined::ManifestLost(error),
        Err(error) => return Examined::Failed(error),
    };
    let mut examination = Examination { archive, scan, control, again, damaged: false };
    let result = examination.run(resume.filter(|place| place.is_in(object)), after_block);
    let Examination { scan, damaged, .. } = examination;
    match result {
        Ok(()) => Examined::Done { health: scan.finish(), damaged },
        Err(ArchiveError::Interrupted) => {
            let revisit = scan.damaged_positions();
            Examined::Interrupted(Within::new(object, scan.position(), revisit, damaged))
        }
        Err(error) => Examined::Failed(error),
    }
}

impl Examination<'_> {
    fn run(&mut self, resume: Option<&Within>, after_block: &mut dyn FnMut(&HealthScan, bool)) -> ArchiveResult<()> {
        self.repair_manifests()?;
        if let Some(place) = resume {
            self.damaged |= place.damaged;
            for position in place.revisit.iter().filter(|position| **position < place.next_block) {
                self.scan.skip_to(*position);
                self.block()?;
            }
            self.scan.skip_to(place.next_block);
        }
        while self.block()? {
            after_block(&self.scan, self.damaged);
        }
        Ok(())
    }

    fn repair_manifests(&mut self) -> ArchiveResult<()> {
        let plan = self.scan.plan_manifests();
        if plan.steps.is_empty() {
            return Ok(());
        }
        self.damaged = true;
        if self.archive.execute(&plan, &|_| {})?.failed == 0 {
            self.scan.manifests_healed();
        }
        Ok(())
    }

    /// Verifies the next block and repairs it. False after the last one.
    fn block(&mut self) -> ArchiveResult<bool> {
        let Some(health) = self.scan.next_block(&self.control)? else { return Ok(false) };
        if health.is_damaged() {
            self.damaged = true;
            let plan = self.scan.plan_block(&health)?;
            self.archive.execute(&plan, &|_| {})?;
            self.scan.look_again(health.id, &self.again)?;
        }
        Ok(true)
    }
}
