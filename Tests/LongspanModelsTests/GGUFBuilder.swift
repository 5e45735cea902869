/// Writes small GGUF files for tests, well-formed ones and ones with chosen faults.
struct GGUFBuilder {
  struct Tensor {
    var name: String
    var shape: [UInt64]
    var type: UInt32 = 0
    /// The offset in the data section; nil places the data after that of the tensor before.
    var offset: UInt64?
    var data: [UInt8]
  }

  var magic: [UInt8] = Array("GGUF".utf8)
  var version: UInt32 = 3
  var alignment = 32
  /// Counts that are written in place of the true ones.
  var tensorCount: UInt64?
  var metadataCount: UInt64?
  private(set) var metadata: [[UInt8]] = []
  var tensors: [Tensor] = []

  // MARK: Values

  static func little<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
  }

  static func string(_ text: String) -> [UInt8] {
    little(UInt64(text.utf8.count)) + Array(text.utf8)
  }

  /// Adds an entry whose value is given as raw bytes.
  mutating func add(_ key: String, type: UInt32, value: [UInt8]) {
    metadata.append(Self.string(key) + Self.little(type) + value)
  }

  mutating func add(_ key: String, _ value: UInt32) {
    add(key, type: 4, value: Self.little(value))
  }

  mutating func add(_ key: String, _ value: Bool) {
    add(key, type: 7, value: [value ? 1 : 0])
  }

  mutating func add(_ key: String, _ value: String) {
    add(key, type: 8, value: Self.string(value))
  }

  mutating func add(_ key: String, _ values: [String]) {
    add(key, elementType: 8, count: UInt64(values.count), elements: values.flatMap(Self.string))
  }

  mutating func add(_ key: String, _ values: [Int32]) {
    add(key, elementType: 5, count: UInt64(values.count), elements: values.flatMap(Self.little))
  }

  /// Adds an array whose element type and count need not fit its bytes.
  mutating func add(_ key: String, elementType: UInt32, count: UInt64, elements: [UInt8]) {
    add(key, type: 9, value: Self.little(elementType) + Self.little(count) + elements)
  }

  /// Adds an f32 tensor with the values 0, 1, 2 ...
  mutating func addTensor(_ name: String, _ shape: [UInt64]) {
    let count = shape.reduce(1, *)
    let data = (0..<count).flatMap { Self.little(Float($0).bitPattern) }
    tensors.append(Tensor(name: name, shape: shape, data: data))
  }

  // MARK: The file

  func build() -> [UInt8] {
    var file = magic + Self.little(version)
    file += Self.little(tensorCount ?? UInt64(tensors.count))
    file += Self.little(metadataCount ?? UInt64(metadata.count))
    file += metadata.joined()
    var data: [UInt8] = []
    for tensor in tensors {
      data += padding(data.count)
      file += Self.string(tensor.name) + Self.little(UInt32(tensor.shape.count))
      file += tensor.shape.flatMap(Self.little)
      file += Self.little(tensor.type) + Self.little(tensor.offset ?? UInt64(data.count))
      data += tensor.data
    }
    return file + padding(file.count) + data
  }

  private func padding(_ count: Int) -> [UInt8] {
    [UInt8](repeating: 0, count: (alignment - count % alignment) % alignment)
  }
}
