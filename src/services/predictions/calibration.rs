//! What a model of how long jobs take gets wrong, learnt from how long they took. Pure.

use conveyor_store::{CalibratedByRow, CalibrationRow, CorrectionRow};

/// How much a new job weighs once many were learnt from.
const WEIGHT_MIN: f64 = 0.15;

/// A job that has ended. Times are in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JobSample {
    pub on_gpu: bool,
    /// What the model alone said.
    pub modelled: f64,
    pub took: f64,
}

/// What past jobs taught, of cores and of GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Calibration {
    pub cores: Correction,
    pub gpus: Correction,
    /// The last job was encoded on a GPU: the next one that waits is taken to be so too.
    pub last_on_gpu: bool,
}

/// By how much the model was off.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Correction {
    pub jobs: u32,
    /// Logarithm of how many times longer than the model said.
    pub log_ratio: f64,
}

impl Calibration {
    pub fn of_row(row: &CalibrationRow) -> Calibration {
        let of = |row: CorrectionRow| Correction { jobs: row.jobs, log_ratio: row.log_ratio };
        Calibration { cores: of(row.cores), gpus: of(row.gpus), last_on_gpu: row.last_on_gpu }
    }

    /// With the attempts that were learnt from last.
    pub fn row(self, newest: Vec<CalibratedByRow>) -> CalibrationRow {
        let of = |learnt: Correction| CorrectionRow { jobs: learnt.jobs, log_ratio: learnt.log_ratio };
        CalibrationRow { cores: of(self.cores), gpus: of(self.gpus), last_on_gpu: self.last_on_gpu, newest }
    }

    pub fn of(&self, on_gpu: bool) -> Correction {
        if on_gpu { self.gpus } else { self.cores }
    }

    pub fn learn(&mut self, sample: JobSample) {
        let JobSample { on_gpu, modelled, took } = sample;
        if on_gpu { &mut self.gpus } else { &mut self.cores }.learn(modelled, took);
        self.last_on_gpu = on_gpu;
    }
}

impl Correction {
    pub fn factor(&self) -> f64 {
        self.log_ratio.exp()
    }

    fn learn(&mut self, modelled: f64, took: f64) {
        if !(modelled > 0.0 && took > 0.0) {
            return;
        }
        self.jobs = self.jobs.saturating_add(1);
        let weight = (1.0 / f64::from(self.jobs)).max(WEIGHT_MIN);
        // One job that hung for hours must not spoil the next ten.
        let ratio = (took / modelled).ln().clamp(self.log_ratio - 2.0, self.log_ratio + 2.0);
        let ratio = if self.jobs == 1 { (took / modelled).ln() } else { ratio };
        self.log_ratio += weight * (ratio - self.log_ratio);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_learn_what_the_model_gets_wrong_and_survive_one_bad_job() {
        let mut learnt = Correction::default();
        for modelled in [10.0, 30.0, 20.0, 50.0, 15.0] {
            learnt.learn(modelled, modelled * 1.7);
        }
        assert!((learnt.factor() - 1.7).abs() < 0.01, "{}", learnt.factor());
        learnt.learn(10.0, 10_000.0);
        assert!(learnt.factor() < 2.6, "{}", learnt.factor());
        for _ in 0..20 {
            learnt.learn(10.0, 8.0);
        }
        assert!((learnt.factor() - 0.8).abs() < 0.08, "{}", learnt.factor());
        learnt.learn(0.0, 5.0);
        assert!(learnt.factor().is_finite());
    }
}
