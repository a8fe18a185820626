//! Serves a raw image over a Unix socket until its standard input ends, so that the server can be
//! tried, and measured, with any client: `serve_raw IMAGE SOCKET [SCRATCH-DIRECTORY]`. With a
//! directory for scratch the disk can be written, and what was written is thrown away.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use nbd::{Export, Limits, Listen, Listener, NamedExport, Overlay, RawFile, Server};

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (image, socket, scratch) = match &arguments[..] {
        [image, socket] => (image, socket, None),
        [image, socket, scratch] => (image, socket, Some(scratch)),
        _ => bail!("usage: serve_raw IMAGE SOCKET [SCRATCH-DIRECTORY]"),
    };
    let mut export: Arc<dyn Export> =
        Arc::new(RawFile::open(Path::new(image)).with_context(|| format!("opening {image}"))?);
    if let Some(scratch) = scratch {
        export = Arc::new(Overlay::new(export, Path::new(scratch))?);
    }
    let name = "disk".to_owned();
    let exports = vec![NamedExport { name, description: image.clone(), export }];
    let listener = Listener::bind(&Listen::Unix(socket.into()), None)?;
    let server = Server::start(listener, exports, Limits::default())?;
    eprintln!("nbd+unix:///disk?socket={socket}");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    server.stop();
    Ok(())
}
