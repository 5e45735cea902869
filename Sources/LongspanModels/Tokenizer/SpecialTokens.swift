/// The tokens that are found in text by their spelling before it is split into pieces.
struct SpecialTokens: Sendable {
  private struct Entry {
    let spelling: [UInt8]
    let token: Int32
    let isControl: Bool
  }

  /// The entries by their first byte, longest first.
  private var entries = [[Entry]](repeating: [], count: 256)

  /// Adds a token. Empty spellings cannot occur in text and are left out.
  mutating func add(_ spelling: [UInt8], token: Int32, isControl: Bool) {
    guard let first = spelling.first else { return }
    let entry = Entry(spelling: spelling, token: token, isControl: isControl)
    let index = entries[Int(first)].firstIndex { $0.spelling.count < spelling.count }
    entries[Int(first)].insert(entry, at: index ?? entries[Int(first)].endIndex)
  }

  /// The longest token spelled at `offset` of `text`, control tokens only with `includingControl`.
  func match(
    in text: Span<UInt8>, at offset: Int, includingControl: Bool
  ) -> (token: Int32, byteCount: Int)? {
    for entry in entries[Int(text[offset])] where includingControl || !entry.isControl {
      if Self.has(entry.spelling, in: text, at: offset) { return (entry.token, entry.spelling.count) }
    }
    return nil
  }

  private static func has(_ spelling: [UInt8], in text: Span<UInt8>, at offset: Int) -> Bool {
    guard spelling.count <= text.count - offset else { return false }
    for index in spelling.indices where text[offset + index] != spelling[index] { return false }
    return true
  }
}
