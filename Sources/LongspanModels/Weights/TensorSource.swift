import LongspanKernels

/// A tensor of a model file, whatever the file's format.
struct StoredTensor {
  let name: String
  /// The extents, the contiguous (innermost) one first.
  let shape: [Int]
  /// The element type, or `nil` if it is one that Longspan cannot compute with.
  let type: WeightType?
  /// The format's name for the element type.
  let typeName: String

  /// The extents without those of 1, which formats add or leave out.
  var squeezedShape: [Int] { shape.filter { $0 != 1 } }

  var elementCount: Int { shape.reduce(1, *) }
}

/// A model file that weights are read from, and stay in.
protocol TensorSource: AnyObject, Sendable {
  /// The file's name, with which error messages begin.
  var name: String { get }

  func hasTensor(named name: String) -> Bool

  /// - Throws: ``/LongspanKernels/LongspanError`` with ``/LongspanKernels/LongspanError/Code/invalidFile`` if there is
  ///   none of this name.
  func tensor(named name: String) throws(LongspanError) -> StoredTensor

  /// Calls `body` with the stored bytes of a tensor, which live as long as the source.
  func withUnsafeBytes<Result: ~Copyable>(
    of name: String, _ body: (UnsafeRawBufferPointer) throws(LongspanError) -> Result
  ) throws(LongspanError) -> Result

  /// Extents, innermost first, in the order in which the format writes them.
  func describe(_ shape: [Int]) -> String

  /// All tensors.
  var storedTensors: [StoredTensor] { get }
}

/// A box that lets many weight matrices keep one file's mapping alive.
final class SharedFile: TensorSource {
  let file: GGUFFile

  init(_ file: consuming GGUFFile) {
    self.file = file
  }

  var name: String { file.name }

  func hasTensor(named name: String) -> Bool { file.hasTensor(named: name) }

  func tensor(named name: String) throws(LongspanError) -> StoredTensor {
    StoredTensor(try file.tensor(named: name))
  }

  func withUnsafeBytes<Result: ~Copyable>(
    of name: String, _ body: (UnsafeRawBufferPointer) throws(LongspanError) -> Result
  ) throws(LongspanError) -> Result {
    try file.withUnsafeBytes(of: file.tensor(named: name), body)
  }

  func describe(_ shape: [Int]) -> String { "\(shape)" }

  var storedTensors: [StoredTensor] { file.tensors.map(StoredTensor.init) }
}

extension StoredTensor {
  init(_ tensor: GGUFTensor) {
    name = tensor.name
    shape = tensor.shape
    type = WeightType(rawValue: tensor.type.rawValue)
    typeName = tensor.type.name
  }
}
