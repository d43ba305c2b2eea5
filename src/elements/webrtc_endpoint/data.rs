//! The data channels of an endpoint, as its clients know them. What goes over them is in the session.

use std::collections::HashMap;

use uuid::Uuid;

use crate::elements::{Context, Leg, LegKey};
use crate::model::RemoteError;
use crate::transport::Reliability;
use crate::transport::data_channel::{ChannelOptions, DataChannels, DataError};

const NOT_SUPPORTED: RemoteError =
    RemoteError::OperationNotSupported("Data channels are not supported");

pub struct Data {
    /// Whether clients asked for data channels.
    pub wanted: bool,
    /// The session that carries them, once they are negotiated.
    pub leg: Option<LegKey>,
    /// Names of statistics: of all channels together, and of each.
    pub session_id: Uuid,
    ids: HashMap<u16, Uuid>,
}

impl Data {
    pub fn new(wanted: bool) -> Self {
        Self { wanted, leg: None, session_id: Uuid::new_v4(), ids: HashMap::new() }
    }

    /// The channels, once there is an association for them.
    pub fn channels<'a>(&self, cx: &'a Context<'_>) -> Option<&'a DataChannels> {
        let data = cx.net.legs.get(self.leg?)?.session.data()?;
        data.is_connected().then_some(data)
    }

    fn leg<'a>(&self, cx: &'a mut Context<'_>) -> Result<&'a mut Leg, RemoteError> {
        let key = self.leg.ok_or(NOT_SUPPORTED)?;
        let leg = cx.net.legs.get_mut(key).ok_or(NOT_SUPPORTED)?;
        if !leg.session.data().is_some_and(DataChannels::is_connected) {
            return Err(NOT_SUPPORTED);
        }
        cx.net.touched.push(key);
        Ok(leg)
    }

    pub fn create(
        &mut self,
        cx: &mut Context<'_>,
        label: String,
        ordered: bool,
        max_packet_life_time: i32,
        max_retransmits: i32,
        protocol: String,
    ) -> Result<(), RemoteError> {
        let limit = |value: i32| u32::try_from(value).ok().map(|value| value.min(u16::MAX.into()));
        let (reliability, both) = match (limit(max_packet_life_time), limit(max_retransmits)) {
            (None, None) => (Reliability::Reliable, false),
            (Some(millis), None) => (Reliability::Lifetime(millis), false),
            (None, Some(times)) => (Reliability::Retransmits(times), false),
            (Some(_), Some(_)) => (Reliability::Reliable, true),
        };
        let now = cx.at.now;
        let leg = self.leg(cx)?;
        let options = ChannelOptions { label, protocol, ordered, reliability };
        let id = leg.session.open_channel(now, options).map_err(|error| match error {
            DataError::NotConnected => NOT_SUPPORTED,
            DataError::TooManyChannels => {
                RemoteError::OperationNotSupported("No more data channels can be opened")
            }
            DataError::NameTooLong => RemoteError::IllegalParameter(error.to_string()),
        })?;
        if both {
            leg.session.close_channel(now, id);
        }
        self.add(id);
        Ok(())
    }

    pub fn close(&mut self, cx: &mut Context<'_>, channel: i32) -> Result<(), RemoteError> {
        let now = cx.at.now;
        let leg = self.leg(cx)?;
        if let Ok(id) = u16::try_from(channel) {
            leg.session.close_channel(now, id);
        }
        Ok(())
    }

    /// Statistics of this channel have a name from now on.
    pub fn add(&mut self, channel: u16) {
        self.ids.entry(channel).or_insert_with(Uuid::new_v4);
    }

    pub fn remove(&mut self, channel: u16) {
        self.ids.remove(&channel);
    }

    pub fn id(&self, channel: u16) -> Option<Uuid> {
        self.ids.get(&channel).copied()
    }
}
