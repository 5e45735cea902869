import LongspanKernels

/// Typed access to metadata.
///
/// Each accessor throws ``/LongspanKernels/LongspanError`` with code `invalidFile` if the key is absent or holds a value of
/// another type; the message names the file, the key and the expected type. The variants with a default
/// return it if the key is absent and still throw if the value is of another type.
extension GGUFFile {
  /// The string at `key`.
  public func string(_ key: String) throws(LongspanError) -> String {
    try required(key, "a string") { if case .string(let value) = $0 { value } else { nil } }
  }

  /// The string at `key`, or `default` if there is none.
  public func string(_ key: String, default: String) throws(LongspanError) -> String {
    metadata[key] == nil ? `default` : try string(key)
  }

  /// The integer at `key`, stored as any integer type.
  public func int(_ key: String) throws(LongspanError) -> Int {
    try required(key, "an integer") { $0.integer }
  }

  /// The integer at `key`, or `default` if there is none.
  public func int(_ key: String, default: Int) throws(LongspanError) -> Int {
    metadata[key] == nil ? `default` : try int(key)
  }

  /// The number at `key`, stored as float32 or float64.
  public func float(_ key: String) throws(LongspanError) -> Float {
    try required(key, "a float") { $0.floatingPoint }
  }

  /// The number at `key`, or `default` if there is none.
  public func float(_ key: String, default: Float) throws(LongspanError) -> Float {
    metadata[key] == nil ? `default` : try float(key)
  }

  /// The truth value at `key`.
  public func bool(_ key: String) throws(LongspanError) -> Bool {
    try required(key, "a bool") { if case .bool(let value) = $0 { value } else { nil } }
  }

  /// The truth value at `key`, or `default` if there is none.
  public func bool(_ key: String, default: Bool) throws(LongspanError) -> Bool {
    metadata[key] == nil ? `default` : try bool(key)
  }

  /// The array of strings at `key`.
  public func strings(_ key: String) throws(LongspanError) -> [String] {
    try required(key, "an array of strings") {
      if case .array(.string(let values)) = $0 { values } else { nil }
    }
  }

  /// The array of strings at `key`, or `default` if there is none.
  public func strings(_ key: String, default: [String]) throws(LongspanError) -> [String] {
    metadata[key] == nil ? `default` : try strings(key)
  }

  /// The array of integers at `key`, stored as any integer type.
  public func ints(_ key: String) throws(LongspanError) -> [Int] {
    try required(key, "an array of integers") { $0.integers }
  }

  /// The array of integers at `key`, or `default` if there is none.
  public func ints(_ key: String, default: [Int]) throws(LongspanError) -> [Int] {
    metadata[key] == nil ? `default` : try ints(key)
  }

  /// The array of numbers at `key`, stored as float32 or float64.
  public func floats(_ key: String) throws(LongspanError) -> [Float] {
    try required(key, "an array of floats") { $0.floatingPoints }
  }

  /// The array of numbers at `key`, or `default` if there is none.
  public func floats(_ key: String, default: [Float]) throws(LongspanError) -> [Float] {
    metadata[key] == nil ? `default` : try floats(key)
  }

  private func required<Value>(
    _ key: String, _ expected: String, _ convert: (GGUFValue) -> Value?
  ) throws(LongspanError) -> Value {
    guard let stored = metadata[key] else {
      throw LongspanError(.invalidFile, "\(name): has no metadata key '\(key)' (\(expected) is expected)")
    }
    guard let value = convert(stored) else {
      throw LongspanError(
        .invalidFile, "\(name): metadata key '\(key)' is \(stored.typeName), but \(expected) is expected")
    }
    return value
  }
}
