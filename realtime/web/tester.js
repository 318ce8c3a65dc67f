/** The page of a channel that has none of its own: send what you like, and see on the wire what comes. */
import { make, written } from "./dom.js";

export default function (page) {
  page.connect();
  page.root.append(make("p", "muted", "tester"));
}
