import LongspanKernels

/// The tokens of a byte-level vocabulary: their bytes, their kinds and the way back from bytes to token.
struct Vocabulary: Sendable {
  /// The kinds of tokens in `tokenizer.ggml.token_type`, as llama.cpp numbers them.
  enum Kind {
    static let normal = 1
    static let control = 3
    static let userDefined = 4
  }

  /// Tokens that are found in text by their spelling.
  private(set) var special = SpecialTokens()
  /// The bytes of all tokens, one after the other; token t has the bytes `ends[t - 1]..<ends[t]`.
  private var bytes: [UInt8] = []
  private var ends: [Int] = []
  private var isControl: [Bool] = []
  private var tokens: [[UInt8]: Int32] = [:]
  /// The token of each single byte, or nil for a byte that the vocabulary cannot spell.
  private var byteTokens = [Int32?](repeating: nil, count: 256)

  init(_ file: borrowing GGUFFile) throws(LongspanError) {
    let spellings = try file.strings("tokenizer.ggml.tokens")
    let typeKey = "tokenizer.ggml.token_type"
    let kinds = try file.ints(typeKey, default: [Int](repeating: Kind.normal, count: spellings.count))
    guard kinds.count == spellings.count else {
      throw LongspanError(
        .invalidFile, "\(file.name): '\(typeKey)' has \(kinds.count) elements for \(spellings.count) tokens")
    }
    try self.init(spellings, kinds: kinds, fileName: file.name)
  }

  /// Makes the vocabulary of spellings by id, and as many kinds.
  init(_ spellings: [String], kinds: [Int], fileName: String) throws(LongspanError) {
    guard !spellings.isEmpty, spellings.count <= Int(Int32.max) else {
      throw LongspanError(.invalidFile, "\(fileName): a vocabulary of \(spellings.count) tokens")
    }
    ends.reserveCapacity(spellings.count)
    isControl.reserveCapacity(spellings.count)
    tokens.reserveCapacity(spellings.count)
    for (index, spelling) in spellings.enumerated() {
      add(spelling, token: Int32(index), kind: kinds[index])
    }
  }

  var count: Int { ends.count }

  /// The token that spells exactly these bytes by merging, if there is one.
  func token(spelling: [UInt8]) -> Int32? {
    tokens[spelling]
  }

  /// The token of a single byte, or nil if the vocabulary cannot spell it.
  func token(byte: UInt8) -> Int32? {
    byteTokens[Int(byte)]
  }

  /// The bytes that a token stands for, or nil if there is no such token.
  func bytes(of token: Int32) -> ArraySlice<UInt8>? {
    guard let index = Int(exactly: token), ends.indices.contains(index) else { return nil }
    return bytes[(index == 0 ? 0 : ends[index - 1])..<ends[index]]
  }

  /// Whether a token steers the model and stands for no text. False for tokens that do not exist.
  func isControl(_ token: Int32) -> Bool {
    guard let index = Int(exactly: token), isControl.indices.contains(index) else { return false }
    return isControl[index]
  }

  private mutating func add(_ spelling: String, token: Int32, kind: Int) {
    let control = kind == Kind.control
    let isSpecial = control || kind == Kind.userDefined
    let literal = Array(spelling.utf8)
    // A token with characters outside the byte alphabet stands for its own text.
    let decoded = isSpecial ? literal : ByteAlphabet.decode(spelling) ?? literal
    bytes.append(contentsOf: decoded)
    ends.append(bytes.count)
    isControl.append(control)
    if isSpecial {
      special.add(literal, token: token, isControl: control)
    } else if tokens[decoded] == nil {
      tokens[decoded] = token
      if decoded.count == 1 { byteTokens[Int(decoded[0])] = token }
    }
  }
}
