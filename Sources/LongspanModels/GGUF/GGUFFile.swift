import LongspanKernels

/// An open GGUF model file, versions 2 and 3, little-endian.
///
/// Opening reads and checks the header: metadata and tensor descriptions. The tensors' data stay in the file
/// and are borrowed from its memory mapping. Every tensor listed lies wholly within the file, so its bytes can
/// be read without further checks. Tensors of types that Longspan cannot compute with are listed too.
///
/// ```swift
/// let file = try GGUFFile(path: "model.gguf")
/// let heads = try file.int("llama.attention.head_count")
/// let tensor = try file.tensor(named: "token_embd.weight")
/// let bytes = try file.bytes(of: tensor)
/// ```
///
/// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
public struct GGUFFile: ~Copyable, Sendable {
  /// The path that the file was opened with.
  public let path: String
  /// The last component of ``path``, with which error messages begin.
  public let name: String
  /// The GGUF version, 2 or 3.
  public let version: UInt32
  /// All metadata values by key.
  public let metadata: [String: GGUFValue]
  /// All tensors in the order in which the file lists them.
  public let tensors: [GGUFTensor]

  private let tensorIndices: [String: Int]
  private let mapping: MappedFile

  /// Opens the file at `path` and checks its header.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` with code `unreadableFile` if it cannot be opened or mapped,
  ///   `unsupported` for version 1, a big-endian file, an unknown tensor type or an array of arrays, and `invalidFile`
  ///   for everything that breaks the format. The message names the file and the key or tensor.
  public init(path: String) throws(LongspanError) {
    let mapping = try MappedFile(path: path)
    let name = path.split(separator: "/").last.map(String.init) ?? path
    let header = try Self.header(of: mapping, fileName: name)
    self.path = path
    self.name = name
    self.version = header.version
    self.metadata = header.metadata
    self.tensors = header.tensors
    self.tensorIndices = Dictionary(
      uniqueKeysWithValues: header.tensors.enumerated().map { ($0.element.name, $0.offset) })
    self.mapping = mapping
  }

  // The span must not be borrowed in init, which gives the mapping away.
  private static func header(
    of mapping: borrowing MappedFile, fileName: String
  ) throws(LongspanError) -> GGUFHeader {
    try GGUFHeader(mapping.bytes, fileName: fileName)
  }

  /// The length of the file in bytes.
  public var byteCount: Int { mapping.byteCount }

  /// Whether the file has a tensor of this name.
  public func hasTensor(named name: String) -> Bool {
    tensorIndices[name] != nil
  }

  /// The tensor of this name.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` with code `invalidFile` if there is none.
  public func tensor(named name: String) throws(LongspanError) -> GGUFTensor {
    guard let index = tensorIndices[name] else {
      throw LongspanError(.invalidFile, "\(self.name): has no tensor '\(name)'")
    }
    return tensors[index]
  }

  /// The stored bytes of a tensor, borrowed from the mapping.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` with code `invalidArgument` if the tensor is not one of this file's.
  @_lifetime(borrow self)
  public func bytes(of tensor: GGUFTensor) throws(LongspanError) -> RawSpan {
    guard let index = tensorIndices[tensor.name], tensors[index] == tensor else {
      throw LongspanError(.invalidArgument, "\(name): tensor '\(tensor.name)' belongs to another file")
    }
    return mapping.bytes.extracting(tensor.offset..<tensor.offset + tensor.byteCount)
  }

  /// Calls `body` with the stored bytes of a tensor.
  ///
  /// The buffer is valid as long as the file. Its address has the file's alignment, `general.alignment`
  /// (32 unless the file says otherwise).
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` with code `invalidArgument` if the tensor is not one of this file's, and
  ///   whatever `body` throws.
  public func withUnsafeBytes<Result: ~Copyable>(
    of tensor: GGUFTensor, _ body: (UnsafeRawBufferPointer) throws(LongspanError) -> Result
  ) throws(LongspanError) -> Result {
    try bytes(of: tensor).withUnsafeBytes(body)
  }
}
