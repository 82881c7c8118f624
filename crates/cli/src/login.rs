//! `curfew login | logout | whoami | token`: a sign-in for programs, approved in the browser
//! (RFC 8628).

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::client::{Client, Saved, ServerArgument, keep_ca, kept_ca, normal};
use crate::failure::{Exit, Failure, Outcome};
use crate::say;

/// The name by which the gateway knows the CLI.
const CLIENT_ID: &str = "curfew-cli";

/// The grant that is asked for.
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// What RFC 8628 section 3.5 adds to the pause when the server says `slow_down`.
const SLOW_DOWN: Duration = Duration::from_secs(5);

/// The longest pause between two polls, whatever the server asks for.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Signs in for the command line. A person approves it in the browser; it ends with the session
/// in which it was approved.
#[derive(Args, Debug)]
pub(crate) struct Login {
    #[command(flatten)]
    server: ServerArgument,
    /// A PEM file with the gateway's certificate, or that of the authority that vouches for it, where
    /// the system does not know it. Kept for this gateway from the first sign-in on.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Only print the address to open.
    #[arg(long)]
    no_browser: bool,
}

/// Signs out: the session ends on every plane, and the token is forgotten.
#[derive(Args, Debug)]
pub(crate) struct Logout {
    #[command(flatten)]
    server: ServerArgument,
}

/// Says who is signed in, and until when. No activity: it keeps nothing alive.
#[derive(Args, Debug)]
pub(crate) struct Whoami {
    #[command(flatten)]
    server: ServerArgument,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Prints the bearer token, for scripts: curl -H "Authorization: Bearer $(curfew token)" …
#[derive(Args, Debug)]
pub(crate) struct Token {
    #[command(flatten)]
    server: ServerArgument,
}

#[derive(Deserialize)]
struct Device {
    device_code: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<u64>,
}

pub(crate) async fn login(arguments: Login) -> Outcome {
    let earlier = Saved::load(&arguments.server).ok();
    let server = match arguments
        .server
        .server
        .as_deref()
        .or(earlier.as_ref().map(|saved| saved.server.as_str()))
    {
        Some(server) => normal(server)?.to_string(),
        None => {
            return Err(Failure::hint(
                Exit::Usage,
                "which gateway?",
                "curfew login --server https://curfew.example.com",
            ));
        }
    };
    let given = arguments.ca.as_deref();
    let ca = match given {
        Some(path) => Some(path.to_owned()),
        None => match kept_ca(&server)? {
            Some(path) => Some(path),
            None => earlier
                .filter(|saved| saved.server == server)
                .and_then(|saved| saved.ca),
        },
    };
    let client = Client::new(&server, ca.as_deref())?;
    let device: Device = client
        .form("oauth/device_authorization", &[("client_id", CLIENT_ID)])
        .await??;
    let address = device
        .verification_uri_complete
        .as_ref()
        .unwrap_or(&device.verification_uri);
    say::note(format_args!(
        "Approve this sign-in in a browser:\n\n  {address}\n\n  code {}\n",
        device.user_code
    ));
    if !arguments.no_browser {
        open_browser(address);
    }
    let granted = wait(&client, &device).await?;
    let ca = match given {
        Some(path) => Some(keep_ca(&server, path)?),
        None => ca,
    };
    let saved = Saved {
        server,
        token: granted.access_token,
        ca,
    };
    saved.keep()?;
    let lasts = granted.expires_in.map_or_else(String::new, |secs| {
        // Whole minutes: some of the last one has gone while this was approved.
        let minutes = i64::try_from(secs.div_ceil(60)).unwrap_or(i64::MAX);
        let lasts = jiff::SignedDuration::from_mins(minutes);
        format!(", for {lasts:#} at most")
    });
    say::note(format_args!("Signed in{lasts}. Try `curfew whoami`."));
    Ok(())
}

/// Polls until somebody has decided.
async fn wait(client: &Client, device: &Device) -> Outcome<Granted> {
    let mut pause = Duration::from_secs(device.interval.unwrap_or(5).max(1));
    let end = tokio::time::Instant::now() + Duration::from_secs(device.expires_in);
    while tokio::time::Instant::now() < end {
        tokio::time::sleep(pause.min(PAUSE_MAX)).await;
        let form = [
            ("grant_type", DEVICE_GRANT),
            ("client_id", CLIENT_ID),
            ("device_code", device.device_code.as_str()),
        ];
        match client.form("oauth/token", &form).await? {
            Ok(granted) => return Ok(granted),
            Err(refused) => match refused.error.as_str() {
                "authorization_pending" => {}
                "slow_down" => pause += SLOW_DOWN,
                _ => return Err(refused.into()),
            },
        }
    }
    Err(Failure::new(
        Exit::SignIn,
        "nobody approved the sign-in in time",
    ))
}

/// Opens a browser where there is one. That there is none is no failure: the address was printed.
fn open_browser(address: &str) {
    if !say::to_terminal() {
        return;
    }
    let program = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    let _ = Command::new(program)
        .arg(address)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
}

pub(crate) async fn logout(arguments: &Logout) -> Outcome {
    let saved = Saved::load(&arguments.server)?;
    let ended: Outcome<Value> = Client::signed_in(&saved)?.post("api/v1/sign-out").await;
    saved.forget()?;
    match ended {
        Ok(_) => say::note("Signed out, everywhere."),
        // It was over already; that is what was wanted.
        Err(failure) if failure.exit == Exit::SignIn => say::note("The session was over already."),
        Err(failure) => return Err(failure),
    }
    Ok(())
}

pub(crate) async fn whoami(arguments: &Whoami) -> Outcome {
    let saved = Saved::load(&arguments.server)?;
    let session: Value = Client::signed_in(&saved)?.get("api/v1/session").await?;
    if arguments.json {
        say::json(&session);
        return Ok(());
    }
    let text = |path: &str| match session.pointer(path) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(words)) => words
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(", "),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    say::line(format_args!(
        "{} ({})",
        say::bold(text("/subject")),
        text("/roles")
    ));
    let second = |path: &str| {
        let time: String = text(path).chars().take(19).collect();
        format!("{time}Z")
    };
    say::line(format_args!("server    {}", saved.server));
    say::line(format_args!("session   {}", text("/session")));
    say::line(format_args!(
        "signed in {}, AAL{}",
        second("/authenticated_at"),
        text("/aal")
    ));
    say::line(format_args!(
        "ends      {} ({})",
        second("/deadline/at"),
        text("/deadline/cause")
    ));
    Ok(())
}

pub(crate) fn token(arguments: &Token) -> Outcome {
    say::line(Saved::load(&arguments.server)?.token);
    Ok(())
}
