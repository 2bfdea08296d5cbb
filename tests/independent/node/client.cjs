// A conversation by a client nobody here wrote: initialize, a query with progress, a cancel, shutdown.
// usage: node client.cjs SOCKET CWD   (prints one JSON object)
const net = require("node:net");
const rpc = require("vscode-jsonrpc/node");

async function main(socketPath, cwd) {
  const socket = net.connect(socketPath);
  await new Promise((resolve, reject) => socket.once("connect", resolve).once("error", reject));
  const connection = rpc.createMessageConnection(
    new rpc.SocketMessageReader(socket), new rpc.SocketMessageWriter(socket));
  connection.listen();
  const told = {};

  const opened = await connection.sendRequest("initialize", { clientInfo: { name: "vscode-jsonrpc" } });
  await connection.sendNotification("initialized", {});
  told.server = opened.serverInfo.name;

  // A query with progress, by the library's own progress support.
  const token = "ask";
  const events = [];
  const progress = connection.onProgress(new rpc.ProgressType(), token, (value) => events.push(value.event));
  const answer = await connection.sendRequest("query/run", { prompt: "Say hello", cwd, partialResultToken: token });
  progress.dispose();
  told.text = answer.text;
  told.kinds = [...new Set(events.map((event) => event.type))];
  told.streamed = events.filter((event) => event.type === "textDelta").map((event) => event.text).join("");

  // A cancel, by the library's own cancellation, once the answer has begun.
  const source = new rpc.CancellationTokenSource();
  connection.onProgress(new rpc.ProgressType(), "count", (value) => {
    if (value.event.type === "textDelta") source.cancel();
  });
  try {
    await connection.sendRequest(
      "query/run", { prompt: "Count for ever", cwd, partialResultToken: "count" }, source.token);
    told.cancelled = false;
  } catch (error) {
    told.cancelled = { code: error.code, kind: error.data.kind, text: error.data.text };
  }

  try {
    await connection.sendRequest("no/such", {});
  } catch (error) {
    told.unknown = { code: error.code, kind: error.data.kind };
  }
  await connection.sendRequest("shutdown");
  const closed = new Promise((resolve) => connection.onClose(resolve));
  await connection.sendNotification("exit");
  await closed;
  console.log(JSON.stringify(told));
}

main(process.argv[2], process.argv[3]).catch((error) => {
  console.error(error);
  process.exit(1);
});
