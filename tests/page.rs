//! The page of `freshet demo --page` in a real browser.

use crate::support::browser::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn trivial() {
    let Some(browser) = Browser::start().await else { return };
    browser.open("data:text/html,<title>t</title><body><h1>hello</h1><button>b</button>").await;
    assert_eq!(browser.text("h1").await, "hello");
    browser.press(&[crate::support::browser::keys::TAB]).await;
    assert_eq!(browser.run("return document.activeElement.innerText", &[]).await, "b");
    browser.look(390, 844, "dark").await;
    browser.screenshot(&crate::support::server::root().join("target/screenshots/t.png")).await;
    println!("{:?} {:?}", browser.console().await, browser.sent().await);
}
