//! `/media` while somebody exchanges files and folders of the share with links that lead out of it.

use conveyor_testing::api::Appliance;
use conveyor_testing::exchange::Exchange;

/// Requests of each race: without a walk that is the kernel's own, one of the first hundred gets the secret.
const REQUESTS: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_exchanged_link_is_served() {
    let appliance = Appliance::start(&[]).await;
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("race.txt");
    std::fs::write(&secret, "secret").unwrap();
    std::fs::write(appliance.outputs.join("race.txt"), "inside").unwrap();
    std::fs::create_dir(appliance.outputs.join("folder")).unwrap();
    std::fs::write(appliance.outputs.join("folder/race.txt"), "inside").unwrap();
    for (key, exchanged, to) in
        [("race.txt", "race.txt", secret.as_path()), ("folder/race.txt", "folder", outside.path())]
    {
        let _exchanging = Exchange::with_link(appliance.outputs.join(exchanged), to);
        let (url, mut served, mut secrets) = (format!("{}/media/outputs/{key}", appliance.url()), 0, 0);
        for _ in 0..REQUESTS {
            let answer = appliance.client.get(&url).send().await.unwrap();
            match answer.status().as_u16() {
                200 => match answer.text().await.unwrap().as_str() {
                    "inside" => served += 1,
                    _ => secrets += 1,
                },
                status => assert_eq!(status, 404),
            }
        }
        assert_eq!(secrets, 0, "{key}: of {REQUESTS}");
        assert!(served > 0, "{key}");
    }
}

/// What is staged may be wrong still, and what is hidden is nobody's result.
#[tokio::test]
async fn nothing_is_served_before_it_is_published() {
    let appliance = Appliance::start(&[]).await;
    for key in [".staging/clip/clip.mp4", ".clip.mp4.0123abcd.part", "clip.mp4.part", "a/.b/clip.mp4", "clip/clip.mp4"]
    {
        let path = appliance.outputs.join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "0123").unwrap();
        let status = appliance.get(&format!("/media/outputs/{key}")).await.status();
        assert_eq!(status, if key == "clip/clip.mp4" { 200 } else { 404 }, "{key}");
    }
    // Nor by another name, which a link within the share is.
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, appliance.outputs.join(name)).unwrap();
    link(".staging/clip/clip.mp4", "l.mp4");
    link(".staging/clip", "ld");
    link("clip.mp4.part", "clip/part.mp4");
    link("l.mp4", "clip/twice.mp4");
    for key in ["l.mp4", "ld/clip.mp4", "clip/part.mp4", "clip/twice.mp4"] {
        let answer = appliance.get(&format!("/media/outputs/{key}")).await;
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().contains("0123")), (404, false), "{key}");
    }
    for under in ["ld", ".staging/clip", "clip/../.staging/clip"] {
        let listed = appliance.get(&format!("/api/v1/shares/outputs/files?under={under}")).await;
        assert_eq!(listed.status(), 404, "{under}");
    }
    let listed: serde_json::Value = appliance.get("/api/v1/shares/outputs/files").await.json().await.unwrap();
    let part = listed["files"].as_array().unwrap().iter().find(|file| file["name"] == "clip.mp4.part").unwrap();
    assert_eq!(part["url"], serde_json::Value::Null, "{part}");
}
