//! One epoch on its way: from the pipeline's frames to a QUIC stream of its own.

use blocks::{ByteLen, DiskId, Epoch};
use bytes::Bytes;
use crossbeam_channel::Receiver;
use quinn::Connection;
use shipper::{ShipOutput, ShipReport};
use tokio::sync::{mpsc, oneshot};
use wire::{FrameHeader, Reason};

use crate::causes::with_causes;

/// A frame that waits for room.
pub(super) struct Waiting {
    pub(super) len: ByteLen,
    /// Whether it is the end of its epoch.
    pub(super) is_end: bool,
    pub(super) granted: oneshot::Sender<()>,
}

/// What the sender of an epoch tells the session.
pub(super) enum FromEpoch {
    /// It has a frame, and waits for room to send it.
    Wants { disk: DiskId, epoch: Epoch, waiting: Waiting },
    /// All frames are on their way.
    Shipped { disk: DiskId, report: ShipReport },
    /// The epoch can't be finished.
    Broken { disk: DiskId, epoch: Epoch, why: String },
}

/// Sends an epoch, and tells the session how it went. Ends early, without a word, when the
/// connection or the session is gone.
pub(super) async fn send(
    connection: Connection,
    (disk, epoch): (DiskId, Epoch),
    frames: Receiver<ShipOutput>,
    session: mpsc::Sender<FromEpoch>,
) {
    let (forward, mut outputs) = mpsc::channel(1);
    // The pipeline's queue blocks; a thread of its own waits for it. Dropping the receivers, as
    // happens when this task ends, cancels the shipment.
    let pump = tokio::task::spawn_blocking(move || {
        for output in frames {
            if forward.blocking_send(output).is_err() {
                return;
            }
        }
    });
    let sent = stream(&connection, (disk, epoch), &mut outputs, &session).await;
    let told = match sent {
        Ok(Some(report)) => FromEpoch::Shipped { disk, report },
        Ok(None) => FromEpoch::Broken { disk, epoch, why: "the pipeline stopped".into() },
        Err(why) => FromEpoch::Broken { disk, epoch, why },
    };
    drop(outputs);
    // The session is gone only with the connection, and then everything is aborted anyway.
    drop(session.send(told).await);
    drop(pump.await);
}

async fn stream(
    connection: &Connection,
    (disk, epoch): (DiskId, Epoch),
    outputs: &mut mpsc::Receiver<ShipOutput>,
    session: &mpsc::Sender<FromEpoch>,
) -> Result<Option<ShipReport>, String> {
    let mut stream = connection.open_uni().await.map_err(|error| error.to_string())?;
    while let Some(output) = outputs.recv().await {
        match output {
            ShipOutput::Frame(frame) => {
                if !ask_for_room(session, (disk, epoch), &frame).await {
                    return Err("the connection was lost".into());
                }
                stream.write_chunk(frame).await.map_err(|error| error.to_string())?;
            }
            ShipOutput::Done(report) => {
                stream.finish().map_err(|error| error.to_string())?;
                return Ok(Some(report));
            }
            ShipOutput::Failed(error) => {
                // It was never finished, so a failure to reset it changes nothing.
                drop(stream.reset(Reason::SourceFailed.number().into()));
                return Err(with_causes(&error));
            }
        }
    }
    drop(stream.reset(Reason::EpochAborted.number().into()));
    Ok(None)
}

/// Waits for the target's credit. Says no when the session is gone.
async fn ask_for_room(
    session: &mpsc::Sender<FromEpoch>,
    (disk, epoch): (DiskId, Epoch),
    frame: &Bytes,
) -> bool {
    let (granted, grant) = oneshot::channel();
    let header = frame.first_chunk().map(FrameHeader::parse);
    let is_end = matches!(header, Some(Ok(header)) if header.is_end());
    let waiting = Waiting { len: ByteLen(frame.len() as u64), is_end, granted };
    let wants = FromEpoch::Wants { disk, epoch, waiting };
    session.send(wants).await.is_ok() && grant.await.is_ok()
}
