//! Which object store, and by what right.

use std::fs;
use std::path::Path as FilePath;

use curfew_gate::secret;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreScheme};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use crate::config;

/// Why there is no archive at that place.
#[derive(Debug, thiserror::Error)]
#[error("archive {place}: {problem}")]
pub struct PlaceError {
    place: String,
    problem: String,
}

/// What an S3 store asks for; a directory asks for nothing.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The address of a store that is not Amazon's, `https://…`; `http://…` on loopback only.
    pub endpoint: Option<String>,
    /// The region; `us-east-1` where none is given.
    pub region: Option<String>,
    /// Who asks.
    pub access_key_id: Option<String>,
    /// What proves it.
    pub secret_access_key: Option<SecretString>,
    /// For temporary credentials.
    pub session_token: Option<SecretString>,
}

impl Access {
    /// As the configuration says.
    pub fn of(config: &config::Archive) -> Result<Self, PlaceError> {
        let read = |file: &FilePath| {
            secret::read_token(file).map_err(|problem| PlaceError {
                place: config.url.clone(),
                problem,
            })
        };
        Ok(Self {
            endpoint: config.endpoint.clone(),
            region: config.region.clone(),
            access_key_id: config.access_key_id.clone(),
            secret_access_key: config
                .secret_access_key_file
                .as_deref()
                .map(read)
                .transpose()?,
            session_token: None,
        })
    }
}

/// The store at `url`, and where in it the archive begins.
pub(super) fn open(url: &str, access: &Access) -> Result<(Box<dyn ObjectStore>, Path), PlaceError> {
    let wrong = |problem: String| PlaceError {
        place: url.to_owned(),
        problem,
    };
    let parsed = config::archive_place(url).map_err(wrong)?;
    if parsed.scheme() == "s3" {
        let (_, prefix) =
            ObjectStoreScheme::parse(&parsed).map_err(|error| wrong(error.to_string()))?;
        let store = amazon(&parsed, access).map_err(wrong)?;
        return Ok((store, prefix));
    }
    let folder = parsed
        .to_file_path()
        .map_err(|()| wrong("it is no path on this machine".to_owned()))?;
    fs::create_dir_all(&folder).map_err(|error| wrong(error.to_string()))?;
    // What is there must stay there, as in any other store.
    let store = LocalFileSystem::new_with_prefix(&folder)
        .map_err(|error| wrong(error.to_string()))?
        .with_fsync(true);
    Ok((Box::new(store), Path::default()))
}

fn amazon(url: &Url, access: &Access) -> Result<Box<dyn ObjectStore>, String> {
    let mut builder = AmazonS3Builder::new().with_url(url.as_str());
    if let Some(endpoint) = &access.endpoint {
        let at = config::archive_endpoint(endpoint)?;
        builder = builder
            .with_endpoint(endpoint)
            .with_allow_http(at.scheme() == "http");
    }
    builder = builder.with_region(access.region.as_deref().unwrap_or("us-east-1"));
    if let Some(id) = &access.access_key_id {
        builder = builder.with_access_key_id(id);
    }
    if let Some(key) = &access.secret_access_key {
        builder = builder.with_secret_access_key(key.expose_secret());
    }
    if let Some(token) = &access.session_token {
        builder = builder.with_token(token.expose_secret());
    }
    let store = builder.build().map_err(|error| error.to_string())?;
    Ok(Box::new(store))
}
