//! The room and the echo on axum, as its chat example does it: tokio's broadcast channel, each client a receiver of it.
//! One thread, like everybody here. What has gathered for a client is written at once: `feed` until nothing waits,
//! then `flush`.

use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::Response;
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::Router;
use futures_util::{stream, SinkExt, Stream, StreamExt};
use std::convert::Infallible;
use tokio::sync::broadcast::{channel, error::RecvError, error::TryRecvError, Receiver, Sender};

/// How many texts a client may be behind; it misses what is more.
const CAPACITY: usize = 4096;

async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|mut client| async move {
        while let Some(Ok(message)) = client.recv().await {
            let answer = match message {
                Message::Text(text) => Message::Text(format!("Echo: {text}").into()),
                Message::Binary(data) => Message::Binary(data),
                _ => continue,
            };
            if client.send(answer).await.is_err() {
                break;
            }
        }
    })
}

async fn chat(upgrade: WebSocketUpgrade, State(room): State<Sender<Utf8Bytes>>) -> Response {
    upgrade.on_upgrade(|client| talk(client, room))
}

async fn talk(client: WebSocket, room: Sender<Utf8Bytes>) {
    let (mut sink, mut texts) = client.split();
    let Some(Ok(Message::Text(name))) = texts.next().await else { return };
    let mut said = room.subscribe();
    let _ = room.send(format!("{name} joined the chat").into());
    let writing = tokio::spawn(async move {
        while let Some(text) = next(&mut said).await {
            if sink.feed(Message::Text(text)).await.is_err() {
                break;
            }
            loop {
                match said.try_recv() {
                    Ok(text) => {
                        if sink.feed(Message::Text(text)).await.is_err() {
                            return;
                        }
                    }
                    Err(TryRecvError::Lagged(_)) => continue,
                    Err(_) => break,
                }
            }
            if sink.flush().await.is_err() {
                break;
            }
        }
    });
    while let Some(Ok(message)) = texts.next().await {
        if let Message::Text(text) = message {
            let _ = room.send(format!("{name}: {text}").into());
        }
    }
    writing.abort();
    let _ = room.send(format!("{name} left the chat").into());
}

async fn next(said: &mut Receiver<Utf8Bytes>) -> Option<Utf8Bytes> {
    loop {
        match said.recv().await {
            Ok(text) => return Some(text),
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return None,
        }
    }
}

async fn events(
    State(room): State<Sender<Utf8Bytes>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let texts = stream::unfold(room.subscribe(), |mut said| async move {
        let text = next(&mut said).await?;
        Some((Ok(Event::default().data(text.as_str())), said))
    });
    Sse::new(texts).keep_alive(KeepAlive::default())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let port = std::env::args().nth(1).expect("usage: on-axum PORT");
    let app = Router::new()
        .route("/ws", get(echo))
        .route("/chat", get(chat))
        .route("/events", get(events))
        .with_state(channel(CAPACITY).0);
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await.expect("the port is free");
    let without_delay = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
    axum::serve(without_delay, app).await.expect("it serves until it is killed");
}
