//! The resampler against its definition, against itself without wide registers, and with planes that lack samples.

use super::*;
use crate::Plane;

/// Samples without a pattern that a filter could favour.
fn noise(seed: u32, w: usize, h: usize) -> Plane {
    let mut state = seed;
    let data = (0..w * h).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    Plane { w, h, data: data.collect() }
}

fn resampled(plane: &Plane, to: (usize, usize), siting: Siting) -> Vec<u8> {
    let mut data = vec![0; to.0 * to.1];
    Resampler::new((plane.w, plane.h), to, siting).run(plane.view(), ViewMut { bytes: &mut data, stride: to.0 });
    data
}

/// One line by the definition: Keys' kernel with a = -1/2, normalised, over a line that goes on as its edge.
fn by_definition(line: &[f64], to: usize, cosited: bool) -> Vec<f64> {
    let ratio = line.len() as f64 / to as f64;
    let stretch = f64::max(ratio, 1.0);
    let kernel = |x: f64| match x.abs() {
        x if x < 1.0 => 1.5 * x.powi(3) - 2.5 * x.powi(2) + 1.0,
        x if x < 2.0 => -0.5 * x.powi(3) + 2.5 * x.powi(2) - 4.0 * x + 2.0,
        _ => 0.0,
    };
    let place = |n: usize| match cosited {
        // In luma samples of each side, whose middles lie at halves: cosited chroma lies on every second of them.
        true => ((2 * n) as f64 + 0.5) * ratio / 2.0 - 0.25,
        false => (n as f64 + 0.5) * ratio - 0.5,
    };
    let reach = (2.0 * stretch).ceil() as i64 + 1;
    (0..to)
        .map(|n| {
            let centre = place(n);
            let around = (centre.floor() as i64 - reach)..=(centre.ceil() as i64 + reach);
            let (sum, weights) = around.fold((0.0, 0.0), |(sum, weights), at| {
                let weight = kernel((at as f64 - centre) / stretch);
                (sum + weight * line[at.clamp(0, line.len() as i64 - 1) as usize], weights + weight)
            });
            sum / weights
        })
        .collect()
}

#[test]
fn any_size_becomes_any_other_as_defined() {
    let sizes = [
        ((192, 108), (128, 72)),
        ((192, 108), (64, 36)),
        ((128, 72), (192, 108)),
        ((100, 75), (100, 75)),
        ((333, 41), (77, 95)),
        ((640, 64), (40, 4)),
        ((7, 5), (3, 9)),
        ((1, 1), (5, 2)),
        ((2, 2), (2, 1)),
        ((71, 9), (70, 8)),
    ];
    for (n, ((w, h), to)) in sizes.into_iter().enumerate() {
        let plane = noise(n as u32, w, h);
        for siting in [(false, false), (true, false), (true, true)].map(|(left, top)| Siting { left, top }) {
            let rows: Vec<Vec<f64>> = plane
                .data
                .chunks(w)
                .map(|row| by_definition(&row.iter().map(|v| f64::from(*v)).collect::<Vec<_>>(), to.0, siting.left))
                .collect();
            let columns: Vec<Vec<f64>> = (0..to.0)
                .map(|x| by_definition(&rows.iter().map(|row| row[x]).collect::<Vec<_>>(), to.1, siting.top))
                .collect();
            let got = resampled(&plane, to, siting);
            for (at, got) in got.iter().enumerate() {
                let exact = columns[at % to.0][at / to.0].clamp(0.0, 255.0);
                let off = (exact - f64::from(*got)).abs();
                assert!(off < 0.6, "{w}x{h} to {to:?}, {siting:?}: sample {at} is {got} and should be {exact:.2}");
            }
        }
    }
}

#[test]
fn every_processor_gives_the_same_samples() {
    for (w, h, to) in [(1920, 20, (1280, 14)), (957, 31, (641, 17)), (320, 9, (60, 3)), (60, 40, (200, 90))] {
        let plane = noise(7, w, h);
        let (mut plain, mut fast) = (vec![0; to.0 * to.1], vec![0; to.0 * to.1]);
        let mut resampler = Resampler::new((w, h), to, Siting::default());
        resampler.run(plane.view(), ViewMut { bytes: &mut fast, stride: to.0 });
        resampler.lines(plane.view(), ViewMut { bytes: &mut plain, stride: to.0 }, down, across);
        assert_eq!(plain, fast, "{w}x{h} to {to:?}");
    }
}

#[test]
fn the_same_size_is_the_same_picture_and_nothing_is_written_beside_it() {
    let plane = noise(3, 70, 20);
    assert_eq!(resampled(&plane, (70, 20), Siting { left: true, top: true }), plane.data);
    let mut frame = vec![9u8; 100 * 30];
    let target = ViewMut { bytes: &mut frame, stride: 100 }.from(10, 5);
    Resampler::new((70, 20), (35, 10), Siting::default()).run(plane.view(), target);
    for (at, sample) in frame.iter().enumerate() {
        let inside = (10..45).contains(&(at % 100)) && (5..15).contains(&(at / 100));
        assert!(inside || *sample == 9, "sample {at} was written");
    }
}

#[test]
fn a_plane_that_is_too_short_or_empty_is_taken_as_far_as_it_goes() {
    let plane = noise(5, 200, 30);
    let mut data = vec![0; 100 * 15];
    for bytes in [0, 1, 199, 200, 2_050, 5_999] {
        let source = View { bytes: &plane.data[..bytes], stride: 200 };
        Resampler::new((200, 30), (100, 15), Siting::default()).run(source, ViewMut { bytes: &mut data, stride: 100 });
        Resampler::new((200, 30), (100, 15), Siting::default())
            .run(plane.view(), ViewMut { bytes: &mut data[..bytes / 5], stride: 100 });
    }
    for (from, to) in [((0, 0), (4, 4)), ((4, 4), (0, 0)), ((0, 3), (2, 2))] {
        Resampler::new(from, to, Siting::default()).run(plane.view(), ViewMut { bytes: &mut data, stride: 100 });
    }
}
