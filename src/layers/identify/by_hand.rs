//! A call that came by no door.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::read::{malformed, read};
use super::reading::Reading;
use super::refusal::NO_MODEL;
use crate::Error;
use crate::call::{Ask, Call, Credentials, Endpoint, Head};
use crate::catalogue::Model;
use crate::headers::{CF_AIG_AUTHORIZATION, GATEWAY_ID, X_AUTH_EMAIL, X_AUTH_KEY};
use crate::openai::Face;
use crate::receipt::{Readers, Receipt};

impl Call {
    /// A call that came by no door: on the native route, with JSON as its body, for a stack without
    /// [`Identify`](crate::layers::identify). Its fields say the rest: `stream`, `key`, `options`.
    ///
    /// On the endpoints of OpenAI's form the body names the model, which becomes this one. A body that is not the JSON object
    /// that the endpoint takes is [`Error::Malformed`], one without that name [`Error::ModelMissing`].
    ///
    /// ```
    /// use std::sync::Arc;
    /// use http::Response;
    /// use tollgate::body::Body;
    /// use tollgate::call::{Call, Endpoint};
    /// use tollgate::catalogue::{Catalogue, Task};
    /// use tollgate::layers::meter::MeterLayer;
    /// use tower::{Layer, ServiceExt, service_fn};
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let catalogue = Arc::new(Catalogue::default());
    /// let model = catalogue.find("@cf/meta/llama-3.2-1b-instruct", Task::TextGeneration);
    /// let call = Call::new("023e", model, Endpoint::Run, r#"{"prompt": "Hello"}"#).unwrap();
    /// let receipt = call.receipt.clone();
    /// let vendor = service_fn(|_: Call| async {
    ///     let reply = r#"{"result": {"response": "Hi", "usage": {"prompt_tokens": 26, "completion_tokens": 18}}}"#;
    ///     Ok::<_, tollgate::Error>(Response::new(Body::from(reply)))
    /// });
    /// MeterLayer::new(catalogue).layer(vendor).oneshot(call).await.unwrap();
    /// assert_eq!(receipt.read(|facts| facts.cost.neurons.micro()), 26 * 2_457 + 18 * 18_252);
    /// # });
    /// ```
    pub fn new(
        account: impl Into<Arc<str>>,
        model: Arc<Model>,
        endpoint: Endpoint,
        body: impl Into<Bytes>,
    ) -> Result<Self, Error> {
        let (account, body) = (account.into(), body.into());
        let Reading { ask, stream, model: named, broken, .. } = read(&body, "application/json", endpoint);
        if let Some(broken) = broken {
            return Err(malformed(&broken, &body));
        }
        let named = named.filter(|_| endpoint != Endpoint::Run);
        if named.is_none() && endpoint != Endpoint::Run {
            return Err(Error::ModelMissing(NO_MODEL));
        }
        let receipt = opened(Arc::new([]), &model, &account, endpoint, stream);
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let head = Head { method: Method::POST, headers, ..Head::default() };
        let is_other = named.as_ref().is_some_and(|(name, _)| **name != *model.id);
        let call = Self {
            stream,
            head: Arc::new(head),
            model_in_body: named.map(|(_, place)| place),
            ..Self::plain(receipt, account, model, endpoint, ask, body)
        };
        Ok(if is_other { call.with_model(call.model.clone()) } else { call })
    }

    /// A call of which nothing else is known: with the gate's own token, of no key, and without a header.
    pub(crate) fn plain(
        receipt: Receipt,
        account: Arc<str>,
        model: Arc<Model>,
        endpoint: Endpoint,
        ask: Ask,
        body: Bytes,
    ) -> Self {
        Self {
            account,
            is_unlisted: false,
            credentials: Credentials::Gate,
            key: None,
            models: None,
            model,
            endpoint,
            face: Face::Vendor,
            stream: false,
            ask: Arc::new(ask),
            options: Arc::default(),
            head: Arc::default(),
            body,
            decoded: None,
            model_in_body: None,
            socket: None,
            named_beside: None,
            routed_to: None,
            receipt,
            assumed: None,
            allowance: None,
            ceiling: None,
            departure: None,
            elsewhere: None,
            trace: None,
            deadline: None,
        }
    }

    /// A call of the gate's own for this one: on the native route, of the same account and client, with a receipt of its own.
    pub(crate) fn beside(&self, model: Arc<Model>, body: Bytes) -> Self {
        const VOUCHING: [HeaderName; 5] =
            [header::AUTHORIZATION, CF_AIG_AUTHORIZATION, X_AUTH_EMAIL, X_AUTH_KEY, GATEWAY_ID];
        let Reading { ask, .. } = read(&body, "application/json", Endpoint::Run);
        let receipt = self.receipt.beside(model.clone(), Endpoint::Run);
        let own = VOUCHING.into_iter().filter_map(|name| Some((name.clone(), self.head.headers.get(&name)?.clone())));
        let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let head = Head {
            method: Method::POST,
            headers: own.chain([json]).collect(),
            peer: self.head.peer,
            ..Head::default()
        };
        Self {
            is_unlisted: self.is_unlisted,
            credentials: self.credentials,
            key: self.key.clone(),
            head: Arc::new(head),
            deadline: self.deadline,
            ..Self::plain(receipt, self.account.clone(), model, Endpoint::Run, ask, body)
        }
    }

    /// Has these read its receipt when it is sealed, instead of nobody.
    #[must_use]
    pub fn read_by(mut self, readers: Readers) -> Self {
        self.receipt = opened(readers, &self.model, &self.account, self.endpoint, self.stream);
        self
    }
}

fn opened(readers: Readers, model: &Arc<Model>, account: &Arc<str>, endpoint: Endpoint, stream: bool) -> Receipt {
    let receipt = Receipt::open(readers, model.clone());
    receipt.identify(|facts| {
        (facts.account, facts.endpoint, facts.stream) = (account.clone(), Some(endpoint), stream);
    });
    receipt
}
